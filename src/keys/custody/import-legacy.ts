import { isAppError } from '../../lib/errors.ts';
import { randomId } from '../../lib/ids.ts';
import { userOwner } from '../../lib/owner.ts';
import { checkKey } from '../key-format.ts';
import { createPoolWriter, type PoolWriter } from '../pool-writer.ts';
import { proposeKey, type KeyWish } from '../proposal.ts';
import { checkCanary } from './canary.ts';
import type { CustodyDeps } from './deps.ts';
import { asOnlyCommand } from './only-command.ts';
import { legacyKeysOf, type LegacyKey } from './legacy.ts';
import { listUsers } from './listing.ts';

export interface ImportOptions {
  /** Judges every key and writes nothing. */
  dryRun: boolean;
  onProgress(done: { users: number; imported: number }): void;
}

/** Why a key was not imported; `present` is no trouble: it is stored already, for the same endpoint. */
type Outcome =
  | 'imported'
  | 'present'
  | 'pool_full'
  | 'unknown_provider'
  | 'undecryptable'
  | 'malformed'
  | 'endpoint_refused'
  | 'failed';

export interface ImportReport {
  /** People who have keys in the old layout. */
  users: number;
  counts: Record<Outcome, number>;
  /** What was not imported and should have been, by user id and provider. */
  problems: readonly { userId: string; provider: string; why: Outcome }[];
}

interface Person {
  id: string;
  username: string;
}

const ACTOR = 'system:keys-import-legacy';

/**
 * Copies the keys of the old layout into the vault. The old attributes are read and never written. It can be
 * run again: what is stored already, with the same endpoint, is passed over.
 * @throws UnfitError when ENCRYPTION_KEY does not fit the stored keys, or another command is writing; AppError
 *   when Keycloak is away.
 */
export async function importLegacyKeys(deps: CustodyDeps, options: ImportOptions): Promise<ImportReport> {
  const run = () => importAll(deps, options);
  return options.dryRun ? run() : asOnlyCommand(deps.database, run);
}

async function importAll(deps: CustodyDeps, options: ImportOptions): Promise<ImportReport> {
  await checkCanary(deps);
  const importKey = createKeyImport(deps, options.dryRun);
  const problems: ImportReport['problems'][number][] = [];
  const counts = noOutcomes();
  let users = 0;
  for await (const user of listUsers(deps.people)) {
    const found = legacyKeysOf(user);
    if (found.length === 0) continue;
    const person = { id: user.id ?? '', username: user.username ?? '' };
    users += 1;
    for (const legacy of found) {
      const outcome = await importKey(person, legacy);
      counts[outcome] += 1;
      if (outcome !== 'imported' && outcome !== 'present')
        problems.push({ userId: person.id, provider: legacy.provider, why: outcome });
    }
    options.onProgress({ users, imported: counts.imported });
  }
  return { users, counts, problems };
}

function noOutcomes(): Record<Outcome, number> {
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

function createKeyImport(deps: CustodyDeps, dryRun: boolean) {
  const writer = createPoolWriter(deps);
  const requestId = `import-${randomId()}`;

  return async (person: Person, legacy: LegacyKey): Promise<Outcome> => {
    const provider = deps.providers.find(({ id }) => id === legacy.provider);
    if (provider === undefined) return 'unknown_provider';
    const key = deps.keyring.open(legacy.token);
    if (key === undefined) return 'undecryptable';
    if (isSealedByUs(key)) return 'malformed';
    try {
      checkKey(provider, key, deps.providers);
      const wish: KeyWish = {
        owner: userOwner(person.id),
        provider,
        id: randomId(),
        replaced: false,
        key,
        label: legacy.label,
        endpoint: await deps.checkEndpoint(person.id, provider, legacy.endpoint),
        expiresAt: null,
        createdAt: legacy.addedAt ?? new Date(),
      };
      await (dryRun ? rehearse : store)(wish, person.username);
      return 'imported';
    } catch (error) {
      const outcome = outcomeOf(error);
      if (outcome === 'failed')
        deps.log.warn({ err: error, user: person.id, provider: provider.id }, 'a key was not imported');
      return outcome;
    }
  };

  async function rehearse(wish: KeyWish): Promise<void> {
    proposeKey(deps.keyring, wish, await writer.readPool(wish.owner, wish.provider.id));
  }

  async function store(wish: KeyWish, ownerName: string): Promise<void> {
    await writer.write(changeOf(wish, ownerName));
  }

  function changeOf(wish: KeyWish, ownerName: string): Parameters<PoolWriter['write']>[0] {
    return {
      owner: wish.owner,
      ownerName,
      provider: wish.provider.id,
      actor: ACTOR,
      requestId,
      action: 'key.imported',
      plan: (pool) => ({ values: proposeKey(deps.keyring, wish, pool).values, keyIds: [wish.id] }),
    };
  }
}

/**
 * The old system sealed bare keys; whatever else is under our keys is a JSON object: a stored key with its owner,
 * a session's tokens. People can write their own attributes of old: without this, whoever has seen another's
 * sealed key would put it into them and have it sealed anew as one of their own.
 */
function isSealedByUs(plaintext: string): boolean {
  try {
    const parsed: unknown = JSON.parse(plaintext);
    return typeof parsed === 'object' && parsed !== null;
  } catch {
    return false;
  }
}

/** @throws the error again when it is one that the next key would meet too. */
function outcomeOf(error: unknown): Outcome {
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
