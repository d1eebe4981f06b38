import { writeAuditEvent } from '../audit/service.ts';
import type { Principal } from '../http/principal.ts';
import type { Database } from '../lib/postgres/database.ts';
import { AppError } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { userOwner } from '../lib/owner.ts';
import type { Provider } from '../providers/provider.ts';
import {
  deleteKeyStatuses,
  endCooldown,
  listKeyStatuses,
  INITIAL_KEY_STATUS,
  keyStatusName,
  writeTestResult,
} from './key-status-store.ts';
import { assertKeyFormat } from './key-format.ts';
import type { KeyTester, KeyTestResult } from './key-tester.ts';
import { createPoolWriter, type PlannedWrite, type PoolWriterDeps } from './pool-writer.ts';
import { getProvider, type CheckEndpoint } from './provider-lookup.ts';
import {
  isSameContent,
  createStoreEdit,
  createUpdateEdit,
  type KeyInput,
  type PoolEdit,
} from './pool-edit.ts';
import { parsePool, UNREADABLE_KEY_ID, type StoredPool } from './stored-key.ts';
import type { AddKey, KeyAdded, KeysDeleted, KeyView, UpdateKey } from './schema.ts';
import { keyView, keyTestView } from './views.ts';

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
  async function readView(principal: Principal, provider: Provider, value: string): Promise<KeyView> {
    const [stored] = parsePool([value]).keys;
    if (stored === undefined) throw new Error('the value that was just made is no key');
    const owner = userOwner(principal.user.id);
    const facts = await deps.database.withOwner(owner, (sql) => listKeyStatuses(sql, owner));
    return keyView({
      provider,
      stored,
      status: facts.get(keyStatusName(provider.id, stored.id)) ?? INITIAL_KEY_STATUS,
    });
  }

  /** Tests what would be stored. The errors of the change itself come first: a test may cost money. */
  async function testBeforeStoring(
    principal: Principal,
    provider: Provider,
    createEdit: (pool: StoredPool) => PoolEdit,
    requestId: string,
  ): Promise<{ edit: PoolEdit; result: KeyTestResult }> {
    const owner = userOwner(principal.user.id);
    const edit = createEdit(await writer.readStoredPool(owner, provider.id));
    const object = `key:${provider.id}/${edit.id}`;
    await deps.database.withOwner(owner, (sql) =>
      writeAuditEvent(sql, { owner, actor: owner, action: 'key.tested', object, requestId }),
    );
    const { secret, endpoint } = edit.content;
    const result = await deps.tester.test({ userId: principal.user.id, provider, secret, endpoint });
    const facts = {
      user: principal.user.id,
      provider: provider.id,
      key_id: edit.id,
      status: result.status,
    };
    deps.log.info({ event: 'key_tested', ...facts }, 'a key was tested before it is stored');
    if (result.status === 'valid' || result.status === 'unverified') return { edit, result };
    throw new AppError('key_test_failed', `${result.message} Nothing was stored.`, {
      extra: { test: keyTestView(provider.id, edit.id, result) },
    });
  }

  return {
    async add(principal, body, requestId) {
      const provider = getProvider(deps.providers, body.provider);
      const replaced = body.key_id !== undefined;
      // An empty key in a replacement means: keep what is stored.
      if (body.key !== '' || !replaced || provider.requiresKey)
        assertKeyFormat(provider, body.key, deps.providers);
      const wish: KeyInput = {
        owner: userOwner(principal.user.id),
        provider,
        id: body.key_id ?? randomId(),
        isReplacement: replaced,
        key: body.key,
        label: body.label,
        endpoint: await checkedEndpoint(deps.checkEndpoint, principal, provider, body),
        expiresAt: body.expires_at,
        createdAt: new Date(),
      };
      const propose = (pool: StoredPool) => createStoreEdit(deps.keyring, wish, pool);
      const tested = body.validate
        ? await testBeforeStoring(principal, provider, propose, requestId)
        : undefined;
      let value = '';
      await writer.write({
        ...toPoolChange(principal, provider, requestId),
        action: replaced ? 'key.replaced' : 'key.added',
        plan(pool) {
          const proposal = propose(pool);
          if (tested && !isSameContent(tested.edit, proposal)) throw changedDuringTest();
          value = proposal.value;
          return { values: proposal.values, keyIds: [proposal.id] };
        },
        async writeStatus(sql) {
          await deleteKeyStatuses(sql, wish.owner, provider.id, [wish.id]);
          if (tested) await writeTestResult(sql, [wish.owner, provider.id, wish.id], tested.result);
        },
      });
      return {
        message: `${provider.name} key ${replaced ? 'replaced' : 'added'}.`,
        provider: provider.id,
        provider_name: provider.name,
        key: await readView(principal, provider, value),
      };
    },

    async update(principal, target, change, requestId) {
      const provider = getProvider(deps.providers, target.provider);
      const owner = userOwner(principal.user.id);
      let value = '';
      await writer.write({
        ...toPoolChange(principal, provider, requestId),
        action: 'key.updated',
        plan(pool) {
          const proposal = createUpdateEdit(
            deps.keyring,
            { owner, provider, id: target.keyId },
            change,
            pool,
          );
          value = proposal.value;
          return { values: proposal.values, keyIds: [target.keyId] };
        },
        writeStatus: (sql) => endCooldown(sql, [owner, provider.id, target.keyId]),
      });
      return readView(principal, provider, value);
    },

    async remove(principal, providerId, keyId, requestId) {
      const provider = getProvider(deps.providers, providerId);
      const removal = createRemoval(provider, keyId);
      await writer.write({
        ...toPoolChange(principal, provider, requestId),
        action: 'key.deleted',
        plan: (pool) => removal.plan(pool),
        writeStatus: (sql, keyIds) =>
          deleteKeyStatuses(sql, userOwner(principal.user.id), provider.id, keyIds),
      });
      const deleted = removal.count();
      return { message: `${deleted} ${provider.name} ${deleted === 1 ? 'key' : 'keys'} deleted.`, deleted };
    },
  };
}

/** Undefined where a replacement keeps the endpoint that is stored. */
async function checkedEndpoint(
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
    plan(pool: StoredPool): PlannedWrite {
      for (const { id } of pool.keys) if (keyId === undefined || id === keyId) removed.add(id);
      // "All" is all: the owner could not get rid of a value that was damaged in any other way.
      if (keyId === undefined) damagedCount = Math.max(damagedCount, pool.unreadable.length);
      if (removed.size + damagedCount === 0) {
        throw new AppError('key_not_found', `There is no such key of ${provider.name}.`);
      }
      const kept = pool.keys.filter((key) => !removed.has(key.id)).map((key) => key.value);
      return {
        values: keyId === undefined ? [] : [...kept, ...pool.unreadable],
        keyIds: [...removed, ...(damagedCount > 0 ? [UNREADABLE_KEY_ID] : [])],
      };
    },
    count: () => removed.size + damagedCount,
  };
}

function toPoolChange({ user }: Principal, provider: Provider, requestId: string) {
  const owner = userOwner(user.id);
  return { owner, ownerName: user.username, provider: provider.id, actor: owner, requestId };
}

function changedDuringTest(): AppError {
  return new AppError('busy', 'The stored key was changed while this one was tested. Try again.', {
    headers: { 'retry-after': '1' },
  });
}
