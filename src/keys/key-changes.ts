import { recordAudit } from '../audit/service.ts';
import type { Principal } from '../http/principal.ts';
import type { Database } from '../lib/database.ts';
import { AppError } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import type { Keyring } from '../lib/keyring.ts';
import { userOwner } from '../lib/owner.ts';
import type { Provider } from '../providers/provider.ts';
import { deleteFacts, endSetAside, listFacts, NO_FACTS, factsName, recordTest } from './facts-store.ts';
import { checkKey } from './key-format.ts';
import type { KeyTester, KeyTestResult } from './key-tester.ts';
import { createPoolWriter, type PoolPlan, type PoolWriterDeps } from './pool-writer.ts';
import { getProvider, type CheckEndpoint } from './provider-choice.ts';
import { isSameContent, proposeKey, proposeUpdate, type KeyWish, type Proposal } from './proposal.ts';
import { readPool, UNREADABLE, type StoredPool } from './record.ts';
import type { AddKey, KeyAdded, KeysDeleted, KeyView, UpdateKey } from './schema.ts';
import { keyView, testView } from './views.ts';

export interface KeyChangesDeps extends PoolWriterDeps {
  database: Database;
  keyring: Keyring;
  /** The providers on offer in this mode. */
  providers: readonly Provider[];
  checkEndpoint: CheckEndpoint;
  tester: KeyTester;
}

/** What owners change about their keys. Every change is audited and read back. */
export interface KeyChanges {
  /**
   * Seals and stores a key, or with `key_id` replaces one in place: id, position and creation date stay.
   * With `validate` it is tested first, and nothing is stored when it does not work.
   * @throws AppError `unknown_provider`, `key_not_found` (404); `invalid_key_format`, `wrong_provider_key`,
   *   `key_too_long`, `endpoint_forbidden`, `validation_failed` (400); `duplicate_key`, `pool_full` (409);
   *   `key_test_failed` (422); `key_undecryptable` (424) when the stored key is to stay and does not open;
   *   `rate_limited` (429); `busy`, `keycloak_unavailable`, `database_unavailable` (503).
   */
  add(principal: Principal, body: AddKey, requestId: string): Promise<KeyAdded>;
  /**
   * Changes label, switch or expiry.
   * @throws AppError `unknown_provider`, `key_not_found` (404), `key_undecryptable` (424) for a new expiry of
   *   a key that does not open; `busy`, `keycloak_unavailable`, `database_unavailable` (503).
   */
  update(principal: Principal, target: KeyTarget, change: UpdateKey, requestId: string): Promise<KeyView>;
  /**
   * Deletes one key, or without `keyId` all of the provider's.
   * @throws AppError `unknown_provider`, `key_not_found`, `busy`, `keycloak_unavailable`, `database_unavailable`.
   */
  remove(
    principal: Principal,
    provider: string,
    keyId: string | undefined,
    requestId: string,
  ): Promise<KeysDeleted>;
}

export interface KeyTarget {
  /** Provider id. */
  provider: string;
  keyId: string;
}

export function createKeyChanges(deps: KeyChangesDeps): KeyChanges {
  const writer = createPoolWriter(deps);

  /** A key as its owner sees it, from the value that was just stored. */
  async function viewOf(principal: Principal, provider: Provider, value: string): Promise<KeyView> {
    const [stored] = readPool([value]).keys;
    if (stored === undefined) throw new Error('the value that was just made is no key');
    const owner = userOwner(principal.user.id);
    const facts = await deps.database.withOwner(owner, (sql) => listFacts(sql, owner));
    return keyView({ provider, stored, facts: facts.get(factsName(provider.id, stored.id)) ?? NO_FACTS });
  }

  /** Tests what would be stored. The errors of the change itself come first: a test may cost money. */
  async function validate(
    principal: Principal,
    provider: Provider,
    propose: (pool: StoredPool) => Proposal,
    requestId: string,
  ): Promise<{ proposal: Proposal; result: KeyTestResult }> {
    const owner = userOwner(principal.user.id);
    const proposal = propose(await writer.readPool(owner, provider.id));
    const object = `key:${provider.id}/${proposal.id}`;
    await deps.database.withOwner(owner, (sql) =>
      recordAudit(sql, { owner, actor: owner, action: 'key.tested', object, requestId }),
    );
    const { secret, endpoint } = proposal.content;
    const result = await deps.tester.test({ userId: principal.user.id, provider, secret, endpoint });
    const facts = {
      user: principal.user.id,
      provider: provider.id,
      key_id: proposal.id,
      status: result.status,
    };
    deps.log.info({ event: 'key_tested', ...facts }, 'a key was tested before it is stored');
    if (result.status === 'valid' || result.status === 'unverified') return { proposal, result };
    throw new AppError('key_test_failed', `${result.message} Nothing was stored.`, {
      extra: { test: testView(provider.id, proposal.id, result) },
    });
  }

  return {
    async add(principal, body, requestId) {
      const provider = getProvider(deps.providers, body.provider);
      const replaced = body.key_id !== undefined;
      // An empty key in a replacement means: keep what is stored.
      if (body.key !== '' || !replaced || provider.requiresKey) checkKey(provider, body.key, deps.providers);
      const wish: KeyWish = {
        owner: userOwner(principal.user.id),
        provider,
        id: body.key_id ?? randomId(),
        replaced,
        key: body.key,
        label: body.label,
        endpoint: await wishedEndpoint(deps.checkEndpoint, principal, provider, body),
        expiresAt: body.expires_at,
        createdAt: new Date(),
      };
      const propose = (pool: StoredPool) => proposeKey(deps.keyring, wish, pool);
      const tested = body.validate ? await validate(principal, provider, propose, requestId) : undefined;
      let value = '';
      await writer.write({
        ...changeOf(principal, provider, requestId),
        action: replaced ? 'key.replaced' : 'key.added',
        plan(pool) {
          const proposal = propose(pool);
          if (tested && !isSameContent(tested.proposal, proposal)) throw changedMeanwhile();
          value = proposal.value;
          return { values: proposal.values, keyIds: [proposal.id] };
        },
        async settle(sql) {
          await deleteFacts(sql, wish.owner, provider.id, [wish.id]);
          if (tested) await recordTest(sql, [wish.owner, provider.id, wish.id], tested.result);
        },
      });
      return {
        message: `${provider.name} key ${replaced ? 'replaced' : 'added'}.`,
        provider: provider.id,
        provider_name: provider.name,
        key: await viewOf(principal, provider, value),
      };
    },

    async update(principal, target, change, requestId) {
      const provider = getProvider(deps.providers, target.provider);
      const owner = userOwner(principal.user.id);
      let value = '';
      await writer.write({
        ...changeOf(principal, provider, requestId),
        action: 'key.updated',
        plan(pool) {
          const proposal = proposeUpdate(deps.keyring, { owner, provider, id: target.keyId }, change, pool);
          value = proposal.value;
          return { values: proposal.values, keyIds: [target.keyId] };
        },
        settle: (sql) => endSetAside(sql, [owner, provider.id, target.keyId]),
      });
      return viewOf(principal, provider, value);
    },

    async remove(principal, providerId, keyId, requestId) {
      const provider = getProvider(deps.providers, providerId);
      const removal = createRemoval(provider, keyId);
      await writer.write({
        ...changeOf(principal, provider, requestId),
        action: 'key.deleted',
        plan: (pool) => removal.plan(pool),
        settle: (sql, keyIds) => deleteFacts(sql, userOwner(principal.user.id), provider.id, keyIds),
      });
      const deleted = removal.count();
      return { message: `${deleted} ${provider.name} ${deleted === 1 ? 'key' : 'keys'} deleted.`, deleted };
    },
  };
}

/** Undefined where a replacement keeps the endpoint that is stored. */
async function wishedEndpoint(
  checkEndpoint: CheckEndpoint,
  principal: Principal,
  provider: Provider,
  { endpoint, key_id }: AddKey,
): Promise<string | null | undefined> {
  if (endpoint === undefined && key_id !== undefined && provider.requiresEndpoint) return undefined;
  return checkEndpoint(principal.user.id, provider, endpoint ?? null);
}

/** Plans the removal of one key or all. Counts over attempts: what an earlier one took away is gone for the next. */
function createRemoval(provider: Provider, keyId: string | undefined) {
  const removed = new Set<string>();
  let damagedCount = 0;
  return {
    plan(pool: StoredPool): PoolPlan {
      for (const { id } of pool.keys) if (keyId === undefined || id === keyId) removed.add(id);
      // "All" is all: the owner could not get rid of a value that was damaged in any other way.
      if (keyId === undefined) damagedCount = Math.max(damagedCount, pool.foreign.length);
      if (removed.size + damagedCount === 0) {
        throw new AppError('key_not_found', `There is no such key of ${provider.name}.`);
      }
      const kept = pool.keys.filter((key) => !removed.has(key.id)).map((key) => key.value);
      return {
        values: keyId === undefined ? [] : [...kept, ...pool.foreign],
        keyIds: [...removed, ...(damagedCount > 0 ? [UNREADABLE] : [])],
      };
    },
    count: () => removed.size + damagedCount,
  };
}

function changeOf({ user }: Principal, provider: Provider, requestId: string) {
  const owner = userOwner(user.id);
  return { owner, ownerName: user.username, provider: provider.id, actor: owner, requestId };
}

function changedMeanwhile(): AppError {
  return new AppError('busy', 'The stored key was changed while this one was tested. Try again.', {
    headers: { 'retry-after': '1' },
  });
}
