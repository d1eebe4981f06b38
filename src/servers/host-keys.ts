import { AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/keyring.ts';
import { userOwner } from '../lib/owner.ts';
import type { HostKey, Runner, ServerType } from '../runners/runner.ts';
import { createReferences, hopsOf } from './references.ts';
import type { ConfirmHostKey, ServerView } from './schema.ts';
import { openConfig, sealConfig } from './sealing.ts';
import type { ServerKinds } from './server-kinds.ts';
import { getServer } from './server-reads.ts';
import type { Author, ServerWriter } from './server-writer.ts';
import { updateServer, type StoredServer } from './servers-store.ts';
import { undecryptable } from './targets.ts';
import { serverView } from './views.ts';

/** What owners say about the keys by which hosts prove who they are. */
export interface HostKeys {
  /**
   * Stores exactly the key that was sent, and seals the server's secrets anew for a host that has it.
   * @param id the server that was tested; the key is that of the server `hop` on its way where there is one.
   * @returns the server whose key it is.
   * @throws AppError `not_found` (404); `validation_failed` (400) for a server that has no host key, or a `hop` that
   *   is not on the way; `key_undecryptable` (424); `database_unavailable` (503).
   */
  confirmHostKey(author: Author, id: string, key: ConfirmHostKey): Promise<ServerView>;
}

export interface HostKeysDeps {
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
  kinds: ServerKinds;
  writer: ServerWriter;
}

export function createHostKeys({ keyring, runners, kinds, writer }: HostKeysDeps): HostKeys {
  const referencesOf = createReferences(runners);
  return {
    confirmHostKey: (author, id, { type, fingerprint, hop }) =>
      writer.write(author, async ({ sql, servers, tell }) => {
        const server = getServer(servers, id);
        const subject =
          hop == null || hop === id
            ? server
            : hopsOf(servers, server, referencesOf).find((each) => each.id === hop);
        if (subject === undefined) throw notOnTheWay();
        const runner = kinds.find(subject.serverType);
        if (runner?.needsHostKey !== true) throw hasNone(subject);
        const place = { owner: userOwner(author.userId), serverId: subject.id, hostKey: subject.hostKey };
        const config = await openConfig(keyring, runner, place, subject.config);
        if (config === undefined) throw undecryptable(subject.name);
        const hostKey = { type, fingerprint };
        if (isSame(subject.hostKey, hostKey)) return serverView(subject, runner);
        const sealed = sealConfig(keyring, runner, { ...place, hostKey }, config);
        await tell('server.host_key_confirmed', subject.id);
        const stored = await updateServer(sql, subject.id, { ...subject, config: sealed, hostKey }, false);
        return serverView(stored, runner);
      }),
  };
}

function isSame(known: HostKey | null, key: HostKey): boolean {
  return known?.type === key.type && known.fingerprint === key.fingerprint;
}

function notOnTheWay(): AppError {
  const message = 'must be the id of a server that this one goes through';
  return new AppError('validation_failed', 'The request is not valid; see errors.', {
    errors: [{ path: 'hop', message }],
  });
}

function hasNone({ name, serverType }: StoredServer): AppError {
  return new AppError(
    'validation_failed',
    `“${name}” has no host key: it is a server of the kind ${serverType}. If it goes through an SSH server, say that one's id as hop.`,
  );
}
