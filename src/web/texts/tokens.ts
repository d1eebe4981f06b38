import type { TokenScope } from '../api/tokens.ts';
import { formatNumber } from './format.ts';

export const tokensTexts = {
  description:
    'For programs: an SDK or an agent needs the address of this installation and a token, and nothing else.',
  make: 'Make a token',
  emptyTitle: 'No access tokens yet',
  emptyText:
    'A token lets a program use your keys through this installation. You can limit it and revoke it at any time.',
  columns: {
    name: 'Name',
    allowed: 'May',
    limits: 'Only',
    lastUsed: 'Last used',
    expires: 'Expires',
  },
  scopes: {
    chat: { label: 'Use models', text: 'Send requests to /v1 with your keys.' },
    'keys:read': { label: 'Read', text: 'See your keys (masked), your profile and your usage.' },
    'keys:write': { label: 'Change keys', text: 'Add, change, test and delete provider keys.' },
    run: { label: 'Run code', text: 'Start, read and cancel runs on servers that allow tokens.' },
  } satisfies Record<TokenScope, { label: string; text: string }>,
  never: 'Never',
  notUsed: 'Not used yet',
  anyKey: 'Any key and model',
  keys: (count: number) => (count === 1 ? '1 key' : `${formatNumber(count)} keys`),
  models: (models: readonly string[]) => models.join(', '),
  lastStatus: (client: string, status: number | null) =>
    status === null ? `${client}, connection closed` : `${client}, status ${String(status)}`,
  unknownClient: 'A client without a name',
  expired: 'Expired',
  revoke: 'Revoke',
  revokeOf: (name: string) => `Revoke ${name}`,
  revokeTitle: 'Revoke this token?',
  revokeText: (name: string) =>
    `Programs that use “${name}” are refused within a second, and their open streams and runs end. This cannot be undone.`,
  form: {
    title: 'Make an access token',
    name: 'Name',
    nameHint: 'Where you use it, such as “Laptop, Claude Code”.',
    scopes: 'It may',
    expires: 'Expires',
    expiries: {
      '7': 'In 7 days',
      '30': 'In 30 days',
      '90': 'In 90 days',
      '365': 'In a year',
      never: 'Never',
    },
    more: 'Limits',
    models: 'Models',
    modelsHint:
      'One for each line, as provider/model, with * at the end at most: openai/gpt-5*. Empty: any model.',
    keys: 'Keys',
    keysHint:
      'Only these keys are used. If none of them can be used, the request fails instead of using another payer.',
    noKeys: 'You have no keys yet.',
    submit: 'Make token',
    needsScope: 'Choose at least one.',
  },
  created: {
    title: 'Your new token',
    once: 'Copy it now: it is not shown again.',
    copy: 'Copy token',
    use: 'Use it',
    waiting: 'Waiting for the first request…',
    waitingHint: 'Run one of the lines above. This page shows the request when it arrives.',
    arrived: 'The first request has arrived',
    close: 'Done',
  },
  snippets: 'Ready to paste',
  snippetsHint: 'With the address of this installation. Put your token in place of YOUR_TOKEN.',
  placeholder: 'YOUR_TOKEN',
} as const;
