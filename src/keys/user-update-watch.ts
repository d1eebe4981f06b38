import { setTimeout as delay } from 'node:timers/promises';
import { decodeJwt } from 'jose';
import { z } from 'zod';
import { findKeycloakStatus, type KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import type { Log } from '../lib/log.ts';
import type { Owner } from '../lib/owner.ts';

/** An update of a user, from Keycloak's event tables. */
const UserUpdate = z.object({
  id: z.string(),
  /** Keycloak's clock, epoch ms. */
  time: z.number(),
  /** The administrator or client; absent where users update themselves. */
  authDetails: z.object({ userId: z.string().optional() }).optional(),
});
type UserUpdate = z.output<typeof UserUpdate>;

interface WatchedUser {
  owner: Owner;
  /** Keycloak's id of the user. */
  vaultId: string;
}

/**
 * To be called after the update. Logs a collision.
 * @returns true when another client updated the user meanwhile: our update may have overwritten that change.
 */
type CollisionCheck = () => Promise<boolean>;

type KeycloakCaller = Pick<KeycloakAdmin, 'call' | 'realm'>;

/**
 * How far back events are read, by this machine's clock. If Keycloak's clock differs by more, our own update is not
 * found, which is logged.
 */
const LOOKBACK_MS = 15 * 60_000;
const MAX_EVENTS = 100;
/**
 * Keycloak refreshes its user cache a moment after the database holds the update and its event, on other nodes of a
 * cluster later still. A user that is read in between is older than its events.
 */
const CACHE_SETTLE_MS = 250;

/**
 * Starts to watch updates of a user. Await it before reading the representation that an update is built from. Updates
 * before that are part of the representation. An update between read and write has a new event, since Keycloak writes
 * an event in the transaction of its update.
 * @throws AppError `keycloak_unavailable`, `busy`; nothing has been written then.
 */
export async function watchUserUpdates(
  keycloak: KeycloakCaller,
  user: WatchedUser,
  log: Log,
): Promise<CollisionCheck> {
  const before = await readUpdates(keycloak, user.vaultId).catch((error: unknown) => {
    // For example, the client has no right to read events. Keys can still be stored; the doctor reports the right.
    if (findKeycloakStatus(error) === undefined) throw error;
    return undefined;
  });
  const ownId = await findServiceAccountId(keycloak);
  // Our own updates were read back when they were made.
  await delay(settleDelayMs(before?.filter((update) => updaterOf(update) !== ownId) ?? []));
  const known = new Set(before?.map((update) => update.id));
  const fields = { owner: user.owner, vault_id: user.vaultId };

  /**
   * Concurrent updates by others. Undefined when our own update has no event either: the events are then incomplete.
   */
  async function findOtherUpdates(): Promise<UserUpdate[] | undefined> {
    const fresh = (await readUpdates(keycloak, user.vaultId)).filter((update) => !known.has(update.id));
    const others = fresh.filter((update) => updaterOf(update) !== ownId);
    return others.length < fresh.length ? others : undefined;
  }

  return async () => {
    const others = before && (await findOtherUpdates().catch(() => undefined));
    if (others === undefined)
      log.warn(
        { event: 'vault_write_unwatched', ...fields },
        'no event of this key write was found: it may have overwritten a concurrent update of the user',
      );
    if (others === undefined || others.length === 0) return false;
    // Nothing is repaired here: the intended value is not known.
    log.error(
      { event: 'vault_write_collision', ...fields, saved_by: [...new Set(others.map(updaterOf))] },
      'a user was updated during a key write: check that the other update is still there',
    );
    return true;
  };
}

/** How long the newest update needs to reach all caches. Bounded, since the two clocks may differ. */
function settleDelayMs(updates: readonly UserUpdate[]): number {
  const newestMs = Math.max(0, ...updates.map((update) => update.time));
  return Math.min(Math.max(newestMs + CACHE_SETTLE_MS - Date.now(), 0), CACHE_SETTLE_MS);
}

function updaterOf(update: UserUpdate): string {
  return update.authDetails?.userId ?? 'the person';
}

async function readUpdates(keycloak: KeycloakCaller, userId: string): Promise<UserUpdate[]> {
  const since = Date.now() - LOOKBACK_MS;
  const page = { realm: keycloak.realm, max: MAX_EVENTS };
  const [byOthers, byUser] = await Promise.all([
    keycloak.call((client) =>
      client.realms.findAdminEvents({
        ...page,
        // Keycloak answers 400 to the Date that the type requires; it reads epoch milliseconds.
        dateFrom: since as unknown as Date,
        operationTypes: 'UPDATE',
        resourcePath: `users/${userId}`,
      }),
    ),
    keycloak.call((client) =>
      client.realms.findEvents({
        ...page,
        dateFrom: String(since),
        type: ['UPDATE_PROFILE', 'UPDATE_EMAIL'] as never,
        user: userId,
      }),
    ),
  ]);
  return z.array(UserUpdate).parse([...byOthers, ...byUser]);
}

const Claims = z.object({ sub: z.string().optional() });

/** The vault client's service account; undefined where the client lacks the scope `basic`. */
async function findServiceAccountId(keycloak: KeycloakCaller): Promise<string | undefined> {
  const token = await keycloak.call((client) => client.getAccessToken());
  return Claims.parse(decodeJwt(token ?? '')).sub;
}
