import { setTimeout as pause } from 'node:timers/promises';
import { decodeJwt } from 'jose';
import { z } from 'zod';
import { keycloakStatus, type KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import type { Log } from '../lib/log.ts';
import type { Owner } from '../lib/owner.ts';

/** A change to a person's own user, as Keycloak's event tables tell of it. */
const UserUpdate = z.object({
  id: z.string(),
  /** Keycloak's clock, epoch ms. */
  time: z.number(),
  /** An administrator's, or a client's; a person's change to himself has none. */
  authDetails: z.object({ userId: z.string().optional() }).optional(),
});
type UserUpdate = z.output<typeof UserUpdate>;

/** Whose user is watched. */
interface WatchedUser {
  owner: Owner;
  /** Keycloak's id of the user. */
  vaultId: string;
}

/**
 * To be asked once the update is over; says it in the log, too.
 * @returns true when somebody else saved the person meanwhile: our update may have overwritten that change.
 */
type CollisionCheck = () => Promise<boolean>;

type KeycloakCaller = Pick<KeycloakAdmin, 'call' | 'realm'>;

/**
 * How far back events are asked for, by this machine's clock, which may differ from Keycloak's. Should it
 * differ by more, our own update is not found, and that is told.
 */
const LOOKBACK_MS = 15 * 60_000;
const MAX_EVENTS = 100;
/**
 * Keycloak's cache of users learns of a save a moment after the database holds it, together with its event, on
 * other nodes of a cluster later still: read in between, a person is older than the events say.
 */
const CACHE_SETTLE_MS = 250;

/**
 * Begins to watch who saves a person; to be awaited before the representation is read that an update is built
 * from. Whatever Keycloak carried out before that is in the representation; whatever it carried out between
 * reading and update has an event that was not there before. Events are written in the transaction of what
 * they tell.
 * @throws AppError `keycloak_unavailable`, `busy`; nothing has been written then.
 */
export async function watchUserUpdates(
  keycloak: KeycloakCaller,
  user: WatchedUser,
  log: Log,
): Promise<CollisionCheck> {
  const before = await readUpdates(keycloak, user.vaultId).catch((error: unknown) => {
    // No right to see events, say: keys can be stored nevertheless, and the doctor says what is missing.
    if (keycloakStatus(error) === undefined) throw error;
    return undefined;
  });
  const self = await findServiceAccountId(keycloak);
  // Our own saves were read back when they were made.
  await pause(settleDelayMs(before?.filter((save) => updaterOf(save) !== self) ?? []));
  const known = new Set(before?.map((save) => save.id));
  const facts = { owner: user.owner, vault_id: user.vaultId };

  /** Others' saves of the same moment; undefined when not even our own is there: then nothing can be known. */
  async function findOtherUpdates(): Promise<UserUpdate[] | undefined> {
    const fresh = (await readUpdates(keycloak, user.vaultId)).filter((save) => !known.has(save.id));
    const others = fresh.filter((save) => updaterOf(save) !== self);
    return others.length < fresh.length ? others : undefined;
  }

  return async () => {
    const others = before && (await findOtherUpdates().catch(() => undefined));
    if (others === undefined)
      log.warn(
        { event: 'vault_write_unwatched', ...facts },
        'whether a key write overwrote what somebody else saved is not known',
      );
    if (others === undefined || others.length === 0) return false;
    // Nothing is put right here: nobody knows which of two values was meant.
    log.error(
      { event: 'vault_write_collision', ...facts, saved_by: [...new Set(others.map(updaterOf))] },
      'a person was saved while a key was written: look whether that change is still there',
    );
    return true;
  };
}

/** How long the newest save still needs to be seen by all; by this machine's clock, so never for long. */
function settleDelayMs(updates: readonly UserUpdate[]): number {
  const newestMs = Math.max(0, ...updates.map((save) => save.time));
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
        // The typed Date is answered with a 400: epoch milliseconds are what the server reads.
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

/** The vault client's service account; unknown where the client lacks the scope `basic`. */
async function findServiceAccountId(keycloak: KeycloakCaller): Promise<string | undefined> {
  const token = await keycloak.call((client) => client.getAccessToken());
  return Claims.parse(decodeJwt(token ?? '')).sub;
}
