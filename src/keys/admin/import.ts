import type UserRepresentation from '@keycloak/keycloak-admin-client/lib/defs/userRepresentation.js';
import { isAppError } from '../../lib/errors.ts';
import { randomId } from '../../lib/ids.ts';
import { userOwner } from '../../lib/owner.ts';
import { createEndpointCheck, findFormatError } from '../key-input.ts';
import { changePool, readStoredPool } from '../pool-writer.ts';
import { createAddEdit, type KeyInput } from '../pool-edit.ts';
import { readAttributes } from '../vault.ts';
import { assertCanary } from './canary.ts';
import type { KeyAdminDeps } from './deps.ts';
import { withCommandLock } from './command-lock.ts';
import { listRealmUsers } from './list-records.ts';

export interface ImportOptions {
  /** Checks every key and writes nothing. */
  dryRun: boolean;
  onProgress(done: { users: number; imported: number }): void;
}

/** The result for one key. `present` is no problem: the key is stored already, for the same endpoint. */
type ImportOutcome =
  | 'imported'
  | 'present'
  | 'pool_full'
  | 'unknown_provider'
  | 'undecryptable'
  | 'malformed'
  | 'endpoint_refused'
  | 'failed';

export interface ImportReport {
  /** Users who have keys in the old layout. */
  users: number;
  counts: Record<ImportOutcome, number>;
  /** Keys that should have been imported and were not, by user id and provider. */
  problems: readonly { userId: string; provider: string; why: ImportOutcome }[];
}

/**
 * A key in the layout of the previous system: one key per provider in attributes of the user,
 * `byok_<provider>_key|label|added_date|endpoint|last_tested|test_status`. The key is a Fernet token of its bare text.
 * Test results are not read: the tests of that system could not fail.
 */
interface LegacyKey {
  provider: string;
  token: string;
  label: string | null;
  endpoint: string | null;
  /** Undefined where the stored date is invalid or in the future. */
  addedAt: Date | undefined;
}

interface LegacyUser {
  id: string;
  username: string;
}

const TOKEN_ATTRIBUTE = /^byok_(\w+)_key$/;
/** The limit for new labels. Longer legacy labels are cut. */
const MAX_LABEL_LENGTH = 120;
/** A date and time without a zone, as Python's `utcnow().isoformat()` writes it: it means UTC. */
const DATE_WITHOUT_ZONE = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/;

const ACTOR = 'system:keys-import-legacy';

/**
 * Copies the keys of the old layout into the vault. The old attributes are read and never written. It can be
 * run again: keys that are stored already, with the same endpoint, are skipped.
 * @throws UnfitError when ENCRYPTION_KEY does not fit the stored keys, or another command is writing; AppError
 *   when Keycloak is unavailable.
 */
export async function importLegacyKeys(deps: KeyAdminDeps, options: ImportOptions): Promise<ImportReport> {
  const run = () => importAll(deps, options);
  return options.dryRun ? run() : withCommandLock(deps.database, run);
}

async function importAll(deps: KeyAdminDeps, options: ImportOptions): Promise<ImportReport> {
  await assertCanary(deps);
  const importKey = createKeyImporter(deps, options.dryRun);
  const problems: ImportReport['problems'][number][] = [];
  const counts = createCounts();
  let users = 0;
  for await (const representation of listRealmUsers(deps.usersKeycloak)) {
    const legacyKeys = readLegacyKeys(representation);
    if (legacyKeys.length === 0) continue;
    const user = { id: representation.id ?? '', username: representation.username ?? '' };
    users += 1;
    for (const legacy of legacyKeys) {
      const outcome = await importKey(user, legacy);
      counts[outcome] += 1;
      if (outcome !== 'imported' && outcome !== 'present')
        problems.push({ userId: user.id, provider: legacy.provider, why: outcome });
    }
    options.onProgress({ users, imported: counts.imported });
  }
  return { users, counts, problems };
}

function createCounts(): Record<ImportOutcome, number> {
  return {
    imported: 0,
    present: 0,
    pool_full: 0,
    unknown_provider: 0,
    undecryptable: 0,
    malformed: 0,
    endpoint_refused: 0,
    failed: 0,
  };
}

function createKeyImporter(deps: KeyAdminDeps, dryRun: boolean) {
  const checkEndpoint = createEndpointCheck(deps);
  const requestId = `import-${randomId()}`;

  return async (user: LegacyUser, legacy: LegacyKey): Promise<ImportOutcome> => {
    const provider = deps.providers.find(({ id }) => id === legacy.provider);
    if (provider === undefined) return 'unknown_provider';
    const key = deps.keyring.decrypt(legacy.token);
    if (key === undefined) return 'undecryptable';
    if (isOwnPlaintext(key)) return 'malformed';
    try {
      // An import calls no provider, so nothing could prove a key of another form.
      if (findFormatError(provider, key, deps.providers) !== undefined) return 'malformed';
      const input: KeyInput = {
        owner: userOwner(user.id),
        provider,
        id: randomId(),
        isReplacement: false,
        key,
        label: legacy.label,
        endpoint: (await checkEndpoint(user.id, provider, legacy.endpoint)).url,
        expiresAt: null,
        createdAt: legacy.addedAt,
      };
      await (dryRun ? checkOnly : store)(input, user.username);
      return 'imported';
    } catch (error) {
      const outcome = toOutcome(error);
      if (outcome === 'failed')
        deps.log.warn({ err: error, user: user.id, provider: provider.id }, 'a key was not imported');
      return outcome;
    }
  };

  async function checkOnly(input: KeyInput): Promise<void> {
    createAddEdit(deps.keyring, input, await readStoredPool(deps, input.owner, input.provider.id));
  }

  async function store(input: KeyInput, ownerName: string): Promise<void> {
    const { owner, provider, id } = input;
    const pool = { owner, ownerName, provider: provider.id, actor: ACTOR, requestId };
    await changePool(deps, { ...pool, action: 'key.imported' }, (stored) => ({
      values: createAddEdit(deps.keyring, input, stored).values,
      keyIds: [id],
    }));
  }
}

/**
 * The old system encrypted bare keys. Everything that this app encrypts is a JSON object: a stored key with its owner,
 * the tokens of a session. Users can write their own legacy attributes. Without this check, a user could put another
 * user's encrypted key there and have it imported as their own.
 */
function isOwnPlaintext(plaintext: string): boolean {
  try {
    const parsed: unknown = JSON.parse(plaintext);
    return typeof parsed === 'object' && parsed !== null;
  } catch {
    return false;
  }
}

/** @throws the error itself when the next key would fail with it too. */
function toOutcome(error: unknown): ImportOutcome {
  if (!isAppError(error)) throw error;
  switch (error.code) {
    case 'duplicate_key':
      return 'present';
    case 'pool_full':
      return 'pool_full';
    case 'invalid_key_format':
    case 'wrong_provider_key':
    case 'key_too_long':
      return 'malformed';
    case 'validation_failed':
    case 'endpoint_forbidden':
      return 'endpoint_refused';
    case 'keycloak_unavailable':
    case 'database_unavailable':
      throw error;
    default:
      return 'failed';
  }
}

/** One key per provider. */
export function readLegacyKeys(user: UserRepresentation): LegacyKey[] {
  const attributes = readAttributes(user);
  return Object.entries(attributes).flatMap(([name, [token = '']]) => {
    const provider = TOKEN_ATTRIBUTE.exec(name)?.[1];
    if (provider === undefined) return [];
    const text = (field: string) => attributes[`byok_${provider}_${field}`]?.[0]?.trim() ?? '';
    return [
      {
        provider,
        token: token.trim(),
        label: Array.from(text('label')).slice(0, MAX_LABEL_LENGTH).join('').trim() || null,
        endpoint: text('endpoint') || null,
        addedAt: parseDate(text('added_date')),
      },
    ];
  });
}

function parseDate(text: string): Date | undefined {
  const date = new Date(DATE_WITHOUT_ZONE.test(text) ? `${text.replace(' ', 'T')}Z` : text);
  return Number.isNaN(date.getTime()) || date.getTime() > Date.now() ? undefined : date;
}
