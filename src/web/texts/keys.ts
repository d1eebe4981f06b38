import type { KeyTestStatus } from '../../keys/schema.ts';
import type { StatusTone } from '../components/status-badge.tsx';
import { formatNumber } from './format.ts';

/** A test result in words, with what to do next. */
export interface StatusText {
  label: string;
  tone: StatusTone;
  next?: string;
}

export const keyStatusTexts: Record<KeyTestStatus, StatusText> = {
  untested: { label: 'Not tested', tone: 'neutral', next: 'Test it to see whether the provider accepts it.' },
  valid: { label: 'Valid', tone: 'good' },
  invalid: {
    label: 'Invalid',
    tone: 'bad',
    next: 'The provider refuses this key. Make a new one there, then replace this one.',
  },
  forbidden: {
    label: 'Not allowed',
    tone: 'bad',
    next: 'The provider knows this key, but it may not do this. Change its rights there.',
  },
  no_credit: { label: 'No credit', tone: 'bad', next: 'Add credit at the provider, then test again.' },
  rate_limited: {
    label: 'Rate limited',
    tone: 'warning',
    next: 'The provider limits requests. Test again later.',
  },
  unreachable: {
    label: 'Not reachable',
    tone: 'warning',
    next: 'The endpoint did not answer. Check its address, or test again later.',
  },
  timeout: {
    label: 'No answer in time',
    tone: 'warning',
    next: 'The provider took too long. Test again later.',
  },
  error: {
    label: 'Test failed',
    tone: 'warning',
    next: 'The provider answered with an error. Test again later.',
  },
  unverified: {
    label: 'Accepts any key',
    tone: 'warning',
    next: 'This endpoint accepted a random key too, so the test says nothing about yours.',
  },
  undecryptable: {
    label: 'Cannot be decrypted',
    tone: 'bad',
    next: 'Replace the key. If other keys have this too, tell your administrator.',
  },
};

export const keysTexts = {
  title: 'Provider keys',
  description: 'Your own keys (BYOK). They are stored encrypted and never shown again.',
  summary: (configured: number, total: number, valid: number, tier: string) =>
    `${formatNumber(configured)} of ${formatNumber(total)} providers, ${formatNumber(valid)} valid, tier ${tier}`,
  tierMissing: 'Adding, changing and testing keys',
  search: 'Search providers',
  noMatch: 'No provider has this name',
  noMatchText: 'Check the spelling. A provider that speaks OpenAI’s protocol can be added as “Custom”.',
  groups: { llm: 'Models', tool: 'Tools', git: 'Git' },
  getKey: 'Get a key',
  getKeyFor: (provider: string) => `Get a key from ${provider}`,
  keyFormat: (format: string) => `Keys look like ${format}`,
  keyCount: (count: number, valid: number) =>
    `${count === 1 ? '1 key' : `${formatNumber(count)} keys`}, ${formatNumber(valid)} valid`,
  noUsage: 'None',
  noKey: 'No key',
  addKey: 'Add key',
  addKeyFor: (provider: string) => `Add key for ${provider}`,
  manage: 'Manage',
  manageFor: (provider: string) => `Manage keys of ${provider}`,
  dialogTitle: (provider: string) => `${provider} keys`,
  ofMaximum: (count: number, maximum: number) => `${formatNumber(count)} of ${formatNumber(maximum)}`,
  fullHint: 'Delete a key to add another one.',
  paysPersonal: (provider: string, label: string | null) =>
    label === null ? `Using your ${provider} key` : `Using your ${provider} key “${label}”`,
  paysSystem: 'Using system default',
  paysNothing: 'No key is used: requests are refused',
  reasons: {
    no_key: 'you have no key here',
    tier_required: 'your tier does not include own keys',
  } as Record<string, string>,
  personal: 'Personal',
  noLabel: 'Without a label',
  disabled: 'Disabled',
  endpoint: 'Endpoint',
  created: 'Added',
  lastUsed: 'Last used',
  lastTested: 'Last tested',
  usage: 'Last 30 days',
  usageOf: (tokens: number, cost: string) => `${formatNumber(tokens)} tokens, ${cost}`,
  unknownCost: 'cost unknown',
  partlyUnknownCost: (cost: string) => `${cost} and requests of unknown cost`,
  never: 'Never',
  expiresOn: (date: string) => `Expires ${date}`,
  expired: 'Expired',
  test: 'Test key',
  testTook: (duration: string) => `in ${duration}`,
  testBilled: 'The provider may charge for this test.',
  enable: 'Enable',
  disable: 'Disable',
  edit: 'Edit',
  replace: 'Replace',
  delete: 'Delete',
  deleteAll: 'Delete all',
  deleteTitle: 'Delete this key?',
  deleteText: (name: string, provider: string) =>
    `“${name}” of ${provider} is removed. Programs that use it lose it at once; requests go to your other keys of this provider, or are refused or paid by the system default.`,
  deleteAllTitle: (provider: string) => `Delete all keys of ${provider}?`,
  deleteAllText: (count: number, provider: string) =>
    `All ${formatNumber(count)} keys of ${provider} are removed. This cannot be undone.`,
  deleted: 'The key is deleted.',
  form: {
    addTitle: 'Add a key',
    replaceTitle: (name: string) => `Replace “${name}”`,
    key: 'Key',
    keyOptional: 'Key (optional)',
    cleaned: 'Quotes, names and spaces around the key were removed.',
    restored: 'Enter the key again: secrets are not kept.',
    label: 'Label',
    labelHint: 'A name to tell your keys apart, such as “Work”.',
    endpoint: 'Endpoint',
    endpointHint: 'Base address of the API, such as https://llm.example.com/v1',
    expires: 'Expires on',
    expiresHint: 'Optional. After this day the key is not used.',
    save: 'Test and save',
    saveAnyway: 'Save without test',
    testing: 'Testing',
    failedTitle: (label: string) => `Not saved: ${label}`,
    duplicate: (label: string) => `You have stored this key already, as “${label}”.`,
    saved: 'The key is saved.',
    replaced: 'The key is replaced.',
  },
  editTitle: 'Edit key',
  save: 'Save',
  changedMeanwhile:
    'The key was changed in another place meanwhile. It is shown as it is now; change it again.',
} as const;
