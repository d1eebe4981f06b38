import { isAppError } from '../../lib/errors.ts';
import { randomId } from '../../lib/ids.ts';
import { userOwner } from '../../lib/owner.ts';
import { assertKeyFormat } from '../key-format.ts';
import { createPoolWriter, type PoolWriter } from '../pool-writer.ts';
import { createStoreEdit, type KeyInput } from '../pool-edit.ts';
import { assertCanary } from './canary.ts';
import type { KeyAdminDeps } from './deps.ts';
import { withCommandLock } from './command-lock.ts';
import { readLegacyKeys, type LegacyKey } from './legacy-keys.ts';
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

interface LegacyUser {
  id: string;
  username: string;
}

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
  const writer = createPoolWriter(deps);
  const requestId = `import-${randomId()}`;

  return async (user: LegacyUser, legacy: LegacyKey): Promise<ImportOutcome> => {
    const provider = deps.providers.find(({ id }) => id === legacy.provider);
    if (provider === undefined) return 'unknown_provider';
    const key = deps.keyring.decrypt(legacy.token);
    if (key === undefined) return 'undecryptable';
    if (isOwnPlaintext(key)) return 'malformed';
    try {
      assertKeyFormat(provider, key, deps.providers);
      const input: KeyInput = {
        owner: userOwner(user.id),
        provider,
        id: randomId(),
        isReplacement: false,
        key,
        label: legacy.label,
        endpoint: await deps.checkEndpoint(user.id, provider, legacy.endpoint),
        expiresAt: null,
        createdAt: legacy.addedAt ?? new Date(),
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
    createStoreEdit(deps.keyring, input, await writer.readStoredPool(input.owner, input.provider.id));
  }

  async function store(input: KeyInput, ownerName: string): Promise<void> {
    await writer.write(toPoolChange(input, ownerName));
  }

  function toPoolChange(input: KeyInput, ownerName: string): Parameters<PoolWriter['write']>[0] {
    return {
      owner: input.owner,
      ownerName,
      provider: input.provider.id,
      actor: ACTOR,
      requestId,
      action: 'key.imported',
      plan: (pool) => ({ values: createStoreEdit(deps.keyring, input, pool).values, keyIds: [input.id] }),
    };
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
