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
  /** The providers available in this mode. */
  providers: readonly Provider[];
  checkEndpoint: CheckEndpoint;
  tester: KeyTester;
}

/** Changes of owners to their keys. Every change is audited and read back. */
export interface KeyChanges {
  /**
   * Encrypts and stores a key, or with `key_id` replaces one in place: id, position and creation date stay.
   * With `validate` the key is tested first, and not stored when it does not work.
   * @throws AppError `unknown_provider`, `key_not_found` (404); `invalid_key_format`, `wrong_provider_key`,
   *   `key_too_long`, `endpoint_forbidden`, `validation_failed` (400); `duplicate_key`, `pool_full` (409);
   *   `key_test_failed` (422); `key_undecryptable` (424) when the stored key is kept and does not decrypt;
   *   `rate_limited` (429); `busy`, `keycloak_unavailable`, `database_unavailable` (503).
   */
  add(principal: Principal, body: AddKey, requestId: string): Promise<KeyAdded>;
  /**
   * Changes label, enabled state or expiry.
   * @throws AppError `unknown_provider`, `key_not_found` (404), `key_undecryptable` (424) for a new expiry of
   *   a key that does not decrypt; `busy`, `keycloak_unavailable`, `database_unavailable` (503).
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

  /** The owner's view of a key, from the value that was just stored. */
  async function readView(principal: Principal, provider: Provider, value: string): Promise<KeyView> {
    const [stored] = parsePool([value]).keys;
    if (stored === undefined) throw new Error('the stored value is not a key');
    const owner = userOwner(principal.user.id);
    const statuses = await deps.database.withOwner(owner, (sql) => listKeyStatuses(sql, owner));
    return keyView({
      provider,
      stored,
      status: statuses.get(keyStatusName(provider.id, stored.id)) ?? INITIAL_KEY_STATUS,
    });
  }

  /** Tests a key before it is stored. Errors of the change itself come first, since a test may cost money. */
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
    const fields = {
      user: principal.user.id,
      provider: provider.id,
      key_id: edit.id,
      status: result.status,
    };
    deps.log.info({ event: 'key_tested', ...fields }, 'a key was tested before it is stored');
    if (result.status === 'valid' || result.status === 'unverified') return { edit, result };
    throw new AppError('key_test_failed', `${result.message} Nothing was stored.`, {
      extra: { test: keyTestView(provider.id, edit.id, result) },
    });
  }

  return {
    async add(principal, body, requestId) {
      const provider = getProvider(deps.providers, body.provider);
      const isReplacement = body.key_id !== undefined;
      // An empty key in a replacement keeps the stored key.
      if (body.key !== '' || !isReplacement || provider.requiresKey)
        assertKeyFormat(provider, body.key, deps.providers);
      const input: KeyInput = {
        owner: userOwner(principal.user.id),
        provider,
        id: body.key_id ?? randomId(),
        isReplacement,
        key: body.key,
        label: body.label,
        endpoint: await checkedEndpoint(deps.checkEndpoint, principal, provider, body),
        expiresAt: body.expires_at,
        createdAt: new Date(),
      };
      const createEdit = (pool: StoredPool) => createStoreEdit(deps.keyring, input, pool);
      const tested = body.validate
        ? await testBeforeStoring(principal, provider, createEdit, requestId)
        : undefined;
      let value = '';
      await writer.write({
        ...toPoolChange(principal, provider, requestId),
        action: isReplacement ? 'key.replaced' : 'key.added',
        plan(pool) {
          const edit = createEdit(pool);
          if (tested && !isSameContent(tested.edit, edit)) throw changedDuringTest();
          value = edit.value;
          return { values: edit.values, keyIds: [edit.id] };
        },
        async writeStatus(sql) {
          await deleteKeyStatuses(sql, input.owner, provider.id, [input.id]);
          if (tested) await writeTestResult(sql, [input.owner, provider.id, input.id], tested.result);
        },
      });
      return {
        message: `${provider.name} key ${isReplacement ? 'replaced' : 'added'}.`,
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
          const edit = createUpdateEdit(deps.keyring, { owner, provider, id: target.keyId }, change, pool);
          value = edit.value;
          return { values: edit.values, keyIds: [target.keyId] };
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

/** Undefined where a replacement keeps the stored endpoint. */
async function checkedEndpoint(
  checkEndpoint: CheckEndpoint,
  principal: Principal,
  provider: Provider,
  { endpoint, key_id }: AddKey,
): Promise<string | null | undefined> {
  if (endpoint === undefined && key_id !== undefined && provider.requiresEndpoint) return undefined;
  return checkEndpoint(principal.user.id, provider, endpoint ?? null);
}

/** Plans the removal of one key or all. Counts across attempts: a retry no longer reads what was removed before. */
function createRemoval(provider: Provider, keyId: string | undefined) {
  const removed = new Set<string>();
  let unreadableCount = 0;
  return {
    plan(pool: StoredPool): PlannedWrite {
      for (const { id } of pool.keys) if (keyId === undefined || id === keyId) removed.add(id);
      // "All" includes unreadable values: the owner has no other way to remove them.
      if (keyId === undefined) unreadableCount = Math.max(unreadableCount, pool.unreadable.length);
      if (removed.size + unreadableCount === 0) {
        throw new AppError('key_not_found', `There is no such key of ${provider.name}.`);
      }
      const kept = pool.keys.filter((key) => !removed.has(key.id)).map((key) => key.value);
      return {
        values: keyId === undefined ? [] : [...kept, ...pool.unreadable],
        keyIds: [...removed, ...(unreadableCount > 0 ? [UNREADABLE_KEY_ID] : [])],
      };
    },
    count: () => removed.size + unreadableCount,
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
