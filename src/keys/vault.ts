import { createHash } from 'node:crypto';
import type UserRepresentation from '@keycloak/keycloak-admin-client/lib/defs/userRepresentation.js';
import { z } from 'zod';
import { AppError, isAppError, keycloakUnavailable } from '../lib/errors.ts';
import { findKeycloakStatus, type KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import type { Log } from '../lib/log.ts';
import { getUserId, type Owner } from '../lib/owner.ts';
import { keysBusy } from './owner-lock.ts';
import { watchUserUpdates } from './user-update-watch.ts';

export interface VaultOptions {
  /** The vault client, in the vault realm. */
  keycloak: KeycloakAdmin;
  /**
   * True with one realm for users and keys: the vault record of a user is that Keycloak user, and is never created
   * here. Otherwise a vault record is a separate, disabled user.
   */
  recordIsUser: boolean;
  log: Log;
}

/** An owner's vault record as read. */
export interface VaultRecord {
  /** Keycloak's id of the user that holds the keys. */
  readonly id: string;
  /** Provider id -> values, unparsed and in no order. */
  readonly values: ReadonlyMap<string, readonly string[]>;
  /** The complete user as read. */
  readonly representation: UserRepresentation;
}

/**
 * Keys are stored in attributes of Keycloak users. A read never causes a deletion, also when it finds nothing: a
 * deletion is a separate call.
 */
export interface Vault {
  /**
   * Finds an owner's record by `knownId`, otherwise by its user name.
   * @returns undefined when there is none. The cause is not known: a mistyped realm gives the same result.
   * @throws AppError `keycloak_unavailable`; `key_undecryptable` when the record names another owner.
   */
  findRecord(owner: Owner, knownId: string | null): Promise<VaultRecord | undefined>;
  /**
   * A vault for writes that must end by `deadlineMs` (epoch ms). Each call gets the remaining time. Without enough
   * time left, a call fails with `busy` and is not sent.
   */
  writableUntil(deadlineMs: number): WritableVault;
}

/** To be used while the owner's lock is held. */
export interface WritableVault extends Pick<Vault, 'findRecord'> {
  /** Creates an empty record. @param ownerName helps administrators to find it in Keycloak's console. */
  createRecord(owner: Owner, ownerName: string): Promise<VaultRecord>;
  /**
   * Replaces one provider's values and reads them back. Where the record is a Keycloak user with a sign-in, the rest
   * of the user is written as it was read just before. A concurrent update of it may be lost: see `onCollision`.
   * @returns false when the record does not hold what was written, or its keys are not those that the change was
   *   computed from. Read again and retry.
   */
  writeValues(owner: Owner, record: VaultRecord, change: ValueChange): Promise<boolean>;
  /**
   * Deletes a separate vault record and verifies that it is gone. Never deletes a user who can sign in.
   * @throws AppError `keycloak_unavailable` when it still exists.
   */
  deleteRecord(owner: Owner, record: VaultRecord): Promise<void>;
}

interface ValueChange {
  provider: string;
  values: readonly string[];
  /** Stored with each write. */
  ownerName: string;
  /** Called when another client updated the user meanwhile: this write may have overwritten that update. */
  onCollision?: () => void;
}

const KEY_ATTRIBUTE = /^byok_([a-z]+)$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const Attributes = z.record(z.string(), z.array(z.string())).default({});
/** Keycloak answers 409 or 500 when two updates collide, and 404 when the record was just deleted. */
const COLLISION_STATUSES = [404, 409, 500];

/**
 * No update starts with less time left. Keycloak may still apply an update whose request was cut off, and by then
 * the next writer could hold the lock.
 */
const MIN_UPDATE_MS = 1_000;

type KeycloakCaller = Pick<KeycloakAdmin, 'call' | 'realm'>;

export function createVault({ keycloak, recordIsUser, log }: VaultOptions): Vault {
  return {
    findRecord: createRecordFinder(keycloak, recordIsUser, log),
    writableUntil: (deadlineMs) =>
      createWriter(
        createDeadlineCaller(keycloak, deadlineMs, 0),
        createDeadlineCaller(keycloak, deadlineMs, MIN_UPDATE_MS),
        { recordIsUser, log },
      ),
  };
}

/** @param minMs calls need more remaining time than this. */
function createDeadlineCaller(keycloak: KeycloakCaller, deadlineMs: number, minMs: number): KeycloakCaller {
  return {
    realm: keycloak.realm,
    async call(work) {
      const remainingMs = deadlineMs - Date.now();
      if (remainingMs <= minMs) throw keysBusy();
      return keycloak.call(work, remainingMs);
    },
  };
}

function createRecordFinder(keycloak: KeycloakCaller, recordIsUser: boolean, log: Log): Vault['findRecord'] {
  async function getUser(id: string): Promise<UserRepresentation | undefined> {
    const user = await callKeycloak(keycloak, (client) => client.users.findOne({ id }));
    // The client answers null where its type says undefined.
    return user ?? undefined;
  }

  async function findByName(owner: Owner): Promise<UserRepresentation | undefined> {
    const username = recordUsername(owner);
    const found = await callKeycloak(keycloak, (client) => client.users.find({ username, exact: true }));
    const id = found.find((user) => user.username === username)?.id;
    return id === undefined ? undefined : getUser(id);
  }

  /** The only code that maps an owner to a Keycloak user. */
  async function findUser(owner: Owner, knownId: string | null): Promise<UserRepresentation | undefined> {
    if (recordIsUser) return getUser(getUserId(owner));
    const known = knownId === null ? undefined : await getUser(knownId);
    return known ?? findByName(owner);
  }

  return async (owner, knownId) => {
    const user = await findUser(owner, knownId);
    if (user === undefined) return undefined;
    const record = toVaultRecord(user);
    if (recordIsUser || readAttributes(user)['owner']?.[0] === owner) return record;
    // An error, not an empty pool: with an empty pool the system default would silently pay for an owner whose record
    // was tampered with.
    const fields = { event: 'key_undecryptable', user: getUserId(owner), provider: null, key_id: null };
    log.warn({ ...fields, vault_id: record.id }, 'a vault record does not name its owner');
    const detail = 'Your stored keys cannot be used. Ask an administrator to check them.';
    throw new AppError('key_undecryptable', detail, {
      extra: { skipped: [] },
      headers: { 'x-should-retry': 'false' },
      cause: new Error(`vault record ${record.id} does not belong to ${owner}; see its attribute "owner"`),
    });
  };
}

/** @param updates for requests that change something. */
function createWriter(
  reads: KeycloakCaller,
  updates: KeycloakCaller,
  { recordIsUser, log }: Omit<VaultOptions, 'keycloak'>,
): WritableVault {
  const findRecord = createRecordFinder(reads, recordIsUser, log);

  async function update(owner: Owner, record: VaultRecord, change: ValueChange): Promise<boolean> {
    const desired = toUserUpdate(record.representation, change, recordIsUser);
    try {
      await updates.call((client) => client.users.update({ id: record.id }, desired));
    } catch (error) {
      if (COLLISION_STATUSES.includes(statusOf(error) ?? 0)) return false;
      throw toVaultError(error);
    }
    const readBack = await findRecord(owner, record.id);
    return readBack?.id === record.id && isSame(keyValues(readBack.representation), keyValues(desired));
  }

  /** Keycloak cannot update a single attribute. Reading again just before the update makes lost updates less likely. */
  async function updateUser(owner: Owner, record: VaultRecord, change: ValueChange): Promise<boolean> {
    const checkCollision = await watchUserUpdates(reads, { owner, vaultId: record.id }, log);
    const current = await findRecord(owner, record.id);
    if (current === undefined || !isSame(keyValues(current.representation), keyValues(record.representation)))
      return false;
    try {
      return await update(owner, current, change);
    } finally {
      if (await checkCollision()) change.onCollision?.();
    }
  }

  return {
    findRecord,

    async createRecord(owner, ownerName) {
      if (recordIsUser) throw vaultUnavailable(new Error(`Keycloak has no user for ${owner}`));
      const created = await callKeycloak(updates, (client) =>
        client.users.create({
          username: recordUsername(owner),
          enabled: false,
          attributes: { owner: [owner], owner_name: [ownerName] },
        }),
      );
      const record = await findRecord(owner, created.id);
      if (record === undefined)
        throw vaultUnavailable(new Error(`the new vault record of ${owner} was not found`));
      return record;
    },

    writeValues: recordIsUser ? updateUser : update,

    async deleteRecord(owner, record) {
      if (recordIsUser) throw new Error('a user is never deleted here');
      try {
        await updates.call((client) => client.users.del({ id: record.id }));
      } catch (error) {
        if (statusOf(error) !== 404) throw toVaultError(error);
      }
      const remaining = await findRecord(owner, record.id);
      if (remaining !== undefined)
        throw vaultUnavailable(new Error(`the vault record of ${owner} still exists`));
    },
  };
}

/** `user.<sub>`, or a digest where the subject is not a UUID and might not be a valid user name. */
function recordUsername(owner: Owner): string {
  const subject = getUserId(owner);
  const name = UUID.test(subject) ? subject : createHash('sha256').update(subject).digest('hex');
  return `user.${name}`;
}

/** Keycloak omits the member `attributes` where there are none. */
export function readAttributes(user: UserRepresentation): Record<string, string[]> {
  return Attributes.parse(user.attributes);
}

/** Reads a user as a vault record, without a check of its owner. */
export function toVaultRecord(user: UserRepresentation): VaultRecord {
  const values = new Map<string, string[]>();
  for (const [name, list] of Object.entries(readAttributes(user))) {
    const provider = KEY_ATTRIBUTE.exec(name)?.[1];
    if (provider !== undefined) values.set(provider, list);
  }
  return { id: z.string().parse(user.id), values, representation: user };
}

/** Keycloak clears these members, and every attribute, when an update omits them. */
const CLEARED_IF_OMITTED = ['username', 'email', 'firstName', 'lastName'] as const;

/**
 * Builds an update that changes one attribute. It omits what Keycloak keeps when omitted, so that the update cannot
 * reset it: enabled, verified, required actions. `enabled` would also lift the lock after wrong passwords.
 */
function toUserUpdate(
  user: UserRepresentation,
  change: ValueChange,
  recordIsUser: boolean,
): UserRepresentation {
  const attributes = { ...readAttributes(user), [`byok_${change.provider}`]: [...change.values] };
  // Shows administrators the owner. A user who is the record needs no such attribute.
  if (!recordIsUser) attributes['owner_name'] = [change.ownerName];
  const desired: UserRepresentation = { attributes };
  for (const name of CLEARED_IF_OMITTED) if (user[name] !== undefined) desired[name] = user[name];
  return desired;
}

/** The key attributes, sorted: Keycloak keeps values byte for byte, but not their order. */
function keyValues(user: UserRepresentation): string[] {
  return Object.entries(readAttributes(user))
    .filter(([name]) => KEY_ATTRIBUTE.test(name))
    .flatMap(([name, values]) => values.map((value) => `${name}=${value}`))
    .sort();
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

/** Every failure of the call means that the vault is unavailable, also a wrong realm or missing rights. */
async function callKeycloak<T>(
  keycloak: KeycloakCaller,
  work: Parameters<typeof keycloak.call<T>>[0],
): Promise<T> {
  try {
    return await keycloak.call(work);
  } catch (error) {
    throw toVaultError(error);
  }
}

function toVaultError(error: unknown): unknown {
  return findKeycloakStatus(error) === undefined ? error : vaultUnavailable(error);
}

/** The HTTP status of Keycloak's answer, also where the error is already an AppError. */
function statusOf(error: unknown): number | undefined {
  return findKeycloakStatus(isAppError(error) ? error.cause : error);
}

function vaultUnavailable(cause: unknown): AppError {
  return keycloakUnavailable(cause, 'Keycloak did not give access to the stored keys.');
}
