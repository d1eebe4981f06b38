import { createHash } from 'node:crypto';
import type UserRepresentation from '@keycloak/keycloak-admin-client/lib/defs/userRepresentation.js';
import { z } from 'zod';
import { AppError, isAppError, keycloakUnavailable } from '../lib/errors.ts';
import { keycloakStatus, type KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import type { Log } from '../lib/log.ts';
import { getUserId, type Owner } from '../lib/owner.ts';
import { keysBusy } from './owner-lock.ts';
import { watchUserUpdates } from './user-update-watch.ts';

export interface VaultOptions {
  /** The vault client, in the realm of the records. */
  keycloak: KeycloakAdmin;
  /**
   * True where the records lie in the realm of the people: a person's record is then the person's own
   * user, which is never created here. Otherwise it is a disabled user made for the purpose.
   */
  recordIsUser: boolean;
  log: Log;
}

/** An owner's record as it was read. */
export interface VaultRecord {
  /** Keycloak's id of the record. */
  readonly id: string;
  /** Provider id -> values, unparsed and in no order. */
  readonly values: ReadonlyMap<string, readonly string[]>;
  /** The whole user, as it was read. */
  readonly representation: UserRepresentation;
}

/**
 * Where keys are kept: attributes of users in Keycloak. Nothing is deleted because of what is read here, or
 * not found: that takes an order of its own.
 */
export interface Vault {
  /**
   * Reads an owner's record: by `knownId`, else by its name.
   * @returns undefined when there is none. Says nothing about why: a mistyped realm looks the same.
   * @throws AppError `keycloak_unavailable`; `key_undecryptable` when the record names another owner.
   */
  findRecord(owner: Owner, knownId: string | null): Promise<VaultRecord | undefined>;
  /**
   * The vault for a writer who must be done by `deadlineMs` (epoch ms). A call then has only the time that
   * is left, and one for which there is none fails as `busy` without being sent.
   */
  writableUntil(deadlineMs: number): WritableVault;
}

/** Call it with the owner's lock held. */
export interface WritableVault extends Pick<Vault, 'findRecord'> {
  /** Makes an empty record. @param ownerName by which an administrator finds it in the console. */
  createRecord(owner: Owner, ownerName: string): Promise<VaultRecord>;
  /**
   * Replaces one provider's values and reads them back. Where the record is a person's own user, all else of
   * it is written as it was read a moment before: what others save in that moment may be lost, and is told.
   * @returns false when the record does not hold what was written, or holds other keys than those that the
   *   change was made from: read again and repeat.
   */
  writeValues(owner: Owner, record: VaultRecord, change: ValueChange): Promise<boolean>;
  /**
   * Deletes a record made for the purpose, and sees that it is gone. Never a person's own user.
   * @throws AppError `keycloak_unavailable` when it is still there.
   */
  deleteRecord(owner: Owner, record: VaultRecord): Promise<void>;
}

interface ValueChange {
  provider: string;
  values: readonly string[];
  /** Kept up to date with each write. */
  ownerName: string;
  /** Called when somebody else saved the person meanwhile, whose change this write may have overwritten. */
  onCollision?: () => void;
}

const KEY_ATTRIBUTE = /^byok_([a-z]+)$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const Attributes = z.record(z.string(), z.array(z.string())).default({});
/** Keycloak answers 409, or 500, when two updates collide, and 404 when the record has just gone. */
const COLLISION_STATUSES = [404, 409, 500];

/**
 * No update is begun with less than this left: Keycloak may carry out one that was cut off, and by then the
 * next writer would be at work.
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

/** @param minRemainingMs what must be left for a call to be sent. */
function createDeadlineCaller(
  keycloak: KeycloakCaller,
  deadlineMs: number,
  minRemainingMs: number,
): KeycloakCaller {
  return {
    realm: keycloak.realm,
    async call(work) {
      const remainingMs = deadlineMs - Date.now();
      if (remainingMs <= minRemainingMs) throw keysBusy();
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

  /** The one place that knows where an owner's record lies. */
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
    // Not "no keys": the system must not pay for somebody whose record was tampered with.
    const facts = { event: 'key_undecryptable', user: getUserId(owner), provider: null, key_id: null };
    log.warn({ ...facts, vault_id: record.id }, 'a vault record does not name its owner');
    throw new AppError('key_undecryptable', 'Your stored keys cannot be used: an administrator must look.', {
      extra: { skipped: [] },
      headers: { 'x-should-retry': 'false' },
      cause: new Error(`vault record ${record.id} does not belong to ${owner}; see its attribute "owner"`),
    });
  };
}

/** @param updates the way for what changes something. */
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
    return (
      readBack?.id === record.id && isSameList(keyValuesOf(readBack.representation), keyValuesOf(desired))
    );
  }

  /** Keycloak has no update of one attribute alone: the time in which another's save can be lost is kept short. */
  async function updateUser(owner: Owner, record: VaultRecord, change: ValueChange): Promise<boolean> {
    const checkCollision = await watchUserUpdates(reads, { owner, vaultId: record.id }, log);
    const current = await findRecord(owner, record.id);
    if (
      current === undefined ||
      !isSameList(keyValuesOf(current.representation), keyValuesOf(record.representation))
    )
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
        throw vaultUnavailable(new Error(`the new vault record of ${owner} is not there`));
      return record;
    },

    writeValues: recordIsUser ? updateUser : update,

    async deleteRecord(owner, record) {
      if (recordIsUser) throw new Error('a person is never deleted here');
      try {
        await updates.call((client) => client.users.del({ id: record.id }));
      } catch (error) {
        if (statusOf(error) !== 404) throw toVaultError(error);
      }
      const remaining = await findRecord(owner, record.id);
      if (remaining !== undefined)
        throw vaultUnavailable(new Error(`the vault record of ${owner} is still there`));
    },
  };
}

/** `user.<sub>`, or a digest where the subject is not a UUID and might not be a valid user name. */
function recordUsername(owner: Owner): string {
  const subject = getUserId(owner);
  const name = UUID.test(subject) ? subject : createHash('sha256').update(subject).digest('hex');
  return `user.${name}`;
}

/** A user's attributes; Keycloak leaves the member out where there are none. */
export function readAttributes(user: UserRepresentation): Record<string, string[]> {
  return Attributes.parse(user.attributes);
}

/** A user as a vault record, whosever it is. */
export function toVaultRecord(user: UserRepresentation): VaultRecord {
  const values = new Map<string, string[]>();
  for (const [name, list] of Object.entries(readAttributes(user))) {
    const provider = KEY_ATTRIBUTE.exec(name)?.[1];
    if (provider !== undefined) values.set(provider, list);
  }
  return { id: z.string().parse(user.id), values, representation: user };
}

/** What an update wipes where it is missing: these, and every attribute. */
const CLEARED_IF_OMITTED = ['username', 'email', 'firstName', 'lastName'] as const;

/**
 * An update that changes one attribute. What Keycloak keeps by itself is left out, and so cannot be set back:
 * whether the user is enabled, verified, must do something at the next login. "Enabled" would also lift the
 * lock that follows wrong passwords.
 */
function toUserUpdate(
  user: UserRepresentation,
  change: ValueChange,
  recordIsUser: boolean,
): UserRepresentation {
  const attributes = { ...readAttributes(user), [`byok_${change.provider}`]: [...change.values] };
  // Whose record it is, for administrators; a person's own user needs no such note.
  if (!recordIsUser) attributes['owner_name'] = [change.ownerName];
  const desired: UserRepresentation = { attributes };
  for (const name of CLEARED_IF_OMITTED) if (user[name] !== undefined) desired[name] = user[name];
  return desired;
}

/** The attributes that are ours to vouch for. Keycloak keeps values byte for byte, but not their order. */
function keyValuesOf(user: UserRepresentation): string[] {
  return Object.entries(readAttributes(user))
    .filter(([name]) => KEY_ATTRIBUTE.test(name))
    .flatMap(([name, values]) => values.map((value) => `${name}=${value}`))
    .sort();
}

function isSameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

/** A call whose every failure means that the vault cannot be used now (wrong realm or rights included). */
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
  return keycloakStatus(error) === undefined ? error : vaultUnavailable(error);
}

/** The status that Keycloak answered with, also where it has become an AppError already. */
function statusOf(error: unknown): number | undefined {
  return keycloakStatus(isAppError(error) ? error.cause : error);
}

function vaultUnavailable(cause: unknown): AppError {
  return keycloakUnavailable(cause, 'Keycloak did not give access to the stored keys.');
}
