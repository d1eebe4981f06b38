import type { Caller, Principal } from '../http/principal.ts';
import { createPoller } from '../lib/async/poller.ts';
import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import type { Log } from '../lib/log.ts';
import type { Dialer } from '../lib/net/dialer.ts';
import type { LoopGuard } from '../lib/net/loop-guard.ts';
import type { Owner } from '../lib/owner.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { NotificationListener } from '../lib/postgres/notification-listener.ts';
import { addKey, type AddRequest } from './add-key.ts';
import { assertCanary } from './admin/canary.ts';
import { createOwnerRemoval, type OwnerRemoval } from './admin/remove-owner.ts';
import { createCallProvider, createKeyTestLimit } from './call-provider.ts';
import type { KeyDeps } from './deps.ts';
import { createEndpointCheck } from './key-input.ts';
import { countKeyStatuses, listKeys, listProviders } from './list-keys.ts';
import { createOwnerLock, type OwnerLock } from './owner-lock.ts';
import { createPoolReader, readKeysByProvider, type ProviderKey } from './pool-reader.ts';
import { removeKey } from './remove-key.ts';
import type { AddKey, UpdateKey } from './schema.ts';
import { testKeys } from './test-key.ts';
import { updateKey, type KeyTarget } from './update-key.ts';
import { isKeyStored, recordRefusal, recordUndecryptable, recordUse } from './use-key.ts';
import { createVaultEventReader } from './vault-events.ts';
import { assertVaultLocation, type VaultLocation } from './vault-location.ts';
import { createVault, type Vault } from './vault.ts';

export type { MoveDeps } from './admin/move.ts';
export type { PurgeDeps } from './admin/purge.ts';
export type { ProviderKey } from './pool-reader.ts';
export { describeLocation } from './vault-location.ts';

export interface KeyStorageOptions {
  database: Database;
  /** The vault client, in the vault realm. */
  vaultKeycloak: KeycloakAdmin;
  vaultLocation: VaultLocation;
  /** A separate pool, so that writers waiting for an owner's lock do not take the connections of requests. */
  lockDatabase: Database;
  /** The size of that pool. */
  maxLockConnections: number;
  log: Log;
}

/** Where keys are stored; for the app and for commands. */
export interface KeyStorage {
  vault: Vault;
  /** One writer per owner. */
  lock: OwnerLock;
  /** The configured location. */
  vaultLocation: VaultLocation;
  /** @throws UnfitError when keys are stored in another location; also while `vault move` runs. */
  assertVaultLocation(): Promise<void>;
}

/** For waiting and work of a write together. */
const MAX_WRITE_MS = 20_000;

export function createKeyStorage(options: KeyStorageOptions): KeyStorage {
  const { vaultKeycloak, vaultLocation, lockDatabase, maxLockConnections, log } = options;
  return {
    vault: createVault({ keycloak: vaultKeycloak, recordIsUser: vaultLocation.recordIsUser, log }),
    lock: createOwnerLock({ database: lockDatabase, slots: maxLockConnections, timeoutMs: MAX_WRITE_MS }),
    vaultLocation,
    assertVaultLocation: () => assertVaultLocation(options.database, vaultLocation),
  };
}

export interface KeyOperationsDeps extends Omit<KeyDeps, 'checkEndpoint' | 'callProvider' | 'keyTestLimit'> {
  dialer: Pick<Dialer, 'request' | 'checkEndpoint'>;
  loopGuard: LoopGuard;
}

/** What users and the gateway do with stored keys. Decrypted keys are never cached. */
export type KeyOperations = ReturnType<typeof createKeyOperations>;

export function createKeyOperations(options: KeyOperationsDeps) {
  const keyTestLimit = createKeyTestLimit();
  const deps = {
    ...options,
    keyTestLimit,
    checkEndpoint: createEndpointCheck(options),
    callProvider: createCallProvider({ ...options, limit: keyTestLimit }),
  };
  return {
    listProviders: (caller: Caller) => listProviders(deps, caller),
    listKeys: (caller: Caller) => listKeys(deps, caller),
    stats: (caller: Caller) => countKeyStatuses(deps, caller),
    add: (
      principal: Principal,
      body: AddKey,
      requestId: string,
      options: Omit<AddRequest, 'requestId'> = {},
    ) => addKey(deps, principal, body, { requestId, ...options }),
    update: (principal: Principal, target: KeyTarget, update: UpdateKey, requestId: string) =>
      updateKey(deps, principal, target, update, requestId),
    test: (principal: Principal, provider: string, keyId: string | undefined, requestId: string) =>
      testKeys(deps, principal, provider, keyId, requestId),
    remove: (
      principal: Principal,
      provider: string,
      keyId: string | undefined,
      requestId: string,
      ifMatch?: string,
    ) => removeKey(deps, principal, provider, { keyId, ifMatch }, requestId),
    readKeysByProvider: (owner: Owner) => readKeysByProvider(deps, owner),
    isStored: (owner: Owner, key: Pick<ProviderKey, 'provider' | 'id' | 'token'>) =>
      isKeyStored(deps, owner, key),
    recordRefusal: (owner: Owner, provider: string, keyId: string) =>
      recordRefusal(deps, owner, provider, keyId),
    recordUndecryptable: (owner: Owner, provider: string, keyId: string) =>
      recordUndecryptable(deps, owner, provider, keyId),
    recordUse: (owner: Owner, provider: string, keyId: string) => recordUse(deps, owner, provider, keyId),
  };
}

export interface KeyServiceDeps extends Omit<KeyOperationsDeps, 'reader'>, KeyStorage {
  notifications: NotificationListener;
  /** The vault client, in the vault realm. */
  vaultKeycloak: KeycloakAdmin;
}

/** Provider keys of users. */
export interface KeyService extends KeyOperations, OwnerRemoval {
  /** @throws UnfitError when vault location or encryption key do not fit what is stored. */
  assertFit(): Promise<void>;
  /** Starts to receive changes by administrators. The caller starts the notifications of other processes. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

const EVENT_POLL_INTERVAL_MS = 2_000;

/** Nothing connects before `assertFit` or `start`. */
export function createKeyService(deps: KeyServiceDeps): KeyService {
  const { database, vaultKeycloak, vaultLocation, log } = deps;
  const reader = createPoolReader(deps);
  const readVaultEvents = createVaultEventReader({ keycloak: vaultKeycloak, database, reader, log });
  const name = 'reading the events of the vault';
  const vaultEventPoller = createPoller(name, EVENT_POLL_INTERVAL_MS, readVaultEvents, log);
  return {
    ...createKeyOperations({ ...deps, reader }),
    ...createOwnerRemoval({ ...deps, recordIsUser: vaultLocation.recordIsUser }),
    async assertFit() {
      await deps.assertVaultLocation();
      await assertCanary(deps);
    },
    start: () => vaultEventPoller.start(),
    stop: () => vaultEventPoller.stop(),
  };
}
