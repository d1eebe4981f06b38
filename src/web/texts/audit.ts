import { formatNumber } from './format.ts';

/** What happened to an object, with `{object}` in its place. Actions that a later version adds are shown by their name. */
const actions: Record<string, string> = {
  'key.added': 'added {object}',
  'key.add_unconfirmed': 'may have added {object}: the storage did not confirm it',
  'key.replaced': 'replaced {object}',
  'key.replace_unconfirmed': 'may have replaced {object}: the storage did not confirm it',
  'key.updated': 'changed {object}',
  'key.update_unconfirmed': 'may have changed {object}: the storage did not confirm it',
  'key.deleted': 'deleted {object}',
  'key.delete_unconfirmed': 'may have deleted {object}: the storage did not confirm it',
  'key.resealed': 'encrypted {object} again',
  'key.reseal_unconfirmed': 'may have encrypted {object} again: the storage did not confirm it',
  'key.imported': 'imported {object}',
  'key.import_unconfirmed': 'may have imported {object}: the storage did not confirm it',
  'key.tested': 'tested {object}',
  'key.write_collided': 'changed {object} at the same time as an administrator',
  'server.added': 'added {object}',
  'server.updated': 'changed {object}',
  'server.deleted': 'deleted {object}',
  'server.tested': 'tested {object}',
  'server.host_key_confirmed': 'confirmed the host key of {object}',
  'vault.purged': 'removed {object}, whose user no longer exists',
  'vault.purge_unconfirmed': 'may have removed {object}: the storage did not confirm it',
  'run.started': 'started {object}',
  'run.cancelled': 'cancelled {object}',
  'token.created': 'made {object}',
  'token.revoked': 'revoked {object}',
  'session.started': 'signed in',
  'session.ended': 'ended {object}',
  'tier.refused': 'was refused by tier: {object}',
};

/** "added {object}" of `key.added` -> "Added a key". */
function toOption(action: string): string {
  const text =
    (actions[action] ?? action).split(':')[0]?.replace('{object}', `a ${action.split('.')[0] ?? ''}`) ?? '';
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

export const auditTexts = {
  description: 'What was done with your keys, servers, runs and tokens, by whom and when.',
  emptyTitle: 'Nothing has happened yet',
  emptyText: 'Changes of keys, servers and tokens, sign-ins and runs are listed here.',
  noMatchTitle: 'No event matches',
  noMatchText: 'Choose other days or another kind of event.',
  filters: { action: 'What', from: 'From', to: 'To', everything: 'Everything' },
  noMatchReset: 'Show everything',
  actionGroups: {
    key: 'Keys',
    server: 'Servers',
    run: 'Runs',
    token: 'Tokens',
    session: 'Sign-ins',
    tier: 'Refusals',
    vault: 'Storage',
  } as Record<string, string>,
  actionOptions: Object.keys(actions).map((action) => ({ action, label: toOption(action) })),
  more: 'Load more',
  you: 'You',
  system: (component: string) => `The system (${component})`,
  administrator: (id: string) => `Account ${id}`,
  objects: {
    key: (name: string) => `the key ${name}`,
    server: (name: string) => `the server ${name}`,
    run: (name: string) => `the run ${name}`,
    token: (name: string) => `the token ${name}`,
    session: () => 'a session',
  } as Record<string, (name: string) => string>,
  quoted: (name: string) => `“${name}”`,
  times: (count: number) => `${formatNumber(count)} times`,
  request: 'Request',
  describe: (action: string, object: string) =>
    (actions[action] ?? `${action}: {object}`).replace('{object}', object),
} as const;
