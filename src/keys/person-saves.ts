import { setTimeout as pause } from 'node:timers/promises';
import { decodeJwt } from 'jose';
import { z } from 'zod';
import { keycloakStatus, type KeycloakAdmin } from '../lib/keycloak-admin.ts';
import type { Log } from '../lib/log.ts';
import type { Owner } from '../lib/owner.ts';

/** A change to a person's own user, as Keycloak's event tables tell of it. */
const Save = z.object({
  id: z.string(),
  /** Keycloak's clock, epoch ms. */
  time: z.number(),
  /** An administrator's, or a client's; a person's change to himself has none. */
  authDetails: z.object({ userId: z.string().optional() }).optional(),
});
type Save = z.output<typeof Save>;

/** Whose user is watched. */
interface Person {
  owner: Owner;
  /** Keycloak's id of the user. */
  vaultId: string;
}

/**
 * To be asked once the update is over; says it in the log, too.
 * @returns true when somebody else saved the person meanwhile: our update may have overwritten that change.
 */
type SaveWatch = () => Promise<boolean>;

type Events = Pick<KeycloakAdmin, 'call' | 'realm'>;

/**
 * How far back events are asked for, by this machine's clock, which may differ from Keycloak's. Should it
 * differ by more, our own update is not found, and that is told.
 */
const LOOK_BACK_MS = 15 * 60_000;
const MAX_EVENTS = 100;
/**
 * Keycloak's cache of users learns of a save a moment after the database holds it, together with its event, on
 * other nodes of a cluster later still: read in between, a person is older than the events say.
 */
const SETTLED_AFTER_MS = 250;

/**
 * Begins to watch who saves a person; to be awaited before the representation is read that an update is built
 * from. Whatever Keycloak carried out before that is in the representation; whatever it carried out between
 * reading and update has an event that was not there before. Events are written in the transaction of what
 * they tell.
 * @throws AppError `keycloak_unavailable`, `busy`; nothing has been written then.
 */
export async function watchSaves(keycloak: Events, person: Person, log: Log): Promise<SaveWatch> {
  const before = await readSaves(keycloak, person.vaultId).catch((error: unknown) => {
    // No right to see events, say: keys can be stored nevertheless, and the doctor says what is missing.
    if (keycloakStatus(error) === undefined) throw error;
    return undefined;
  });
  const self = await ownUserId(keycloak);
  // Our own saves were read back when they were made.
  await pause(unsettledMs(before?.filter((save) => saverOf(save) !== self) ?? []));
  const known = new Set(before?.map((save) => save.id));
  const facts = { owner: person.owner, vault_id: person.vaultId };

  /** Others' saves of the same moment; undefined when not even our own is there: then nothing can be known. */
  async function findOthers(): Promise<Save[] | undefined> {
    const fresh = (await readSaves(keycloak, person.vaultId)).filter((save) => !known.has(save.id));
    const others = fresh.filter((save) => saverOf(save) !== self);
    return others.length < fresh.length ? others : undefined;
  }

  return async () => {
    const others = before && (await findOthers().catch(() => undefined));
    if (others === undefined)
      log.warn(
        { event: 'vault_write_unwatched', ...facts },
        'whether a key write overwrote what somebody else saved is not known',
      );
    if (others === undefined || others.length === 0) return false;
    // Nothing is put right here: nobody knows which of two values was meant.
    log.error(
      { event: 'vault_write_collision', ...facts, saved_by: [...new Set(others.map(saverOf))] },
      'a person was saved while a key was written: look whether that change is still there',
    );
    return true;
  };
}

/** How long the newest save still needs to be seen by all; by this machine's clock, so never for long. */
function unsettledMs(saves: readonly Save[]): number {
  const newestMs = Math.max(0, ...saves.map((save) => save.time));
  return Math.min(Math.max(newestMs + SETTLED_AFTER_MS - Date.now(), 0), SETTLED_AFTER_MS);
}

function saverOf(save: Save): string {
  return save.authDetails?.userId ?? 'the person';
}

async function readSaves(keycloak: Events, personId: string): Promise<Save[]> {
  const since = Date.now() - LOOK_BACK_MS;
  const page = { realm: keycloak.realm, max: MAX_EVENTS };
  const [byOthers, byThePerson] = await Promise.all([
    keycloak.call((client) =>
      client.realms.findAdminEvents({
        ...page,
        // The typed Date is answered with a 400: epoch milliseconds are what the server reads.
        dateFrom: since as unknown as Date,
        operationTypes: 'UPDATE',
        resourcePath: `users/${personId}`,
      }),
    ),
    keycloak.call((client) =>
      client.realms.findEvents({
        ...page,
        dateFrom: String(since),
        type: ['UPDATE_PROFILE', 'UPDATE_EMAIL'] as never,
        user: personId,
      }),
    ),
  ]);
  return z.array(Save).parse([...byOthers, ...byThePerson]);
}

const Claims = z.object({ sub: z.string().optional() });

/** The vault client's service account; unknown where the client lacks the scope `basic`. */
async function ownUserId(keycloak: Events): Promise<string | undefined> {
  const token = await keycloak.call((client) => client.getAccessToken());
  return Claims.parse(decodeJwt(token ?? '')).sub;
}
