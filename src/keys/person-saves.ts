import { decodeJwt } from 'jose';
import { z } from 'zod';
import { keycloakStatus, type KeycloakAdmin } from '../lib/keycloak-admin.ts';
import type { Log } from '../lib/log.ts';
import type { Owner } from './record.ts';

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
 * other nodes of a cluster later still: what is read in between is older than the event says. So a save this
 * short before our own counts, though its event was there before.
 */
const CACHE_DELAY_MS = 1_000;

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
  const known = new Set(before?.map((save) => save.id));
  const facts = { owner: person.owner, vault_id: person.vaultId };
  return async () => {
    const others = before && (await findOthers(keycloak, person, known).catch(() => undefined));
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

/** Others' saves of the same moment; undefined when not even our own is there, so that nothing can be known. */
async function findOthers(
  keycloak: Events,
  person: Person,
  known: ReadonlySet<string>,
): Promise<Save[] | undefined> {
  const self = await ownUserId(keycloak);
  const saves = await readSaves(keycloak, person.vaultId);
  const isOurs = (save: Save) => save.authDetails?.userId === self;
  const ours = saves.filter((save) => isOurs(save) && !known.has(save.id));
  if (ours.length === 0) return undefined;
  const freshSinceMs = Math.min(...ours.map((save) => save.time)) - CACHE_DELAY_MS;
  return saves.filter((save) => !isOurs(save) && (!known.has(save.id) || save.time >= freshSinceMs));
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

const Claims = z.object({ sub: z.string() });

async function ownUserId(keycloak: Events): Promise<string> {
  const token = await keycloak.call((client) => client.getAccessToken());
  return Claims.parse(decodeJwt(token ?? '')).sub;
}
