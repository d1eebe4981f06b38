import { z } from 'zod';
import { adminEventPages, deletedUserId, touchedUserId, type AdminEvent } from '../lib/admin-events.ts';
import type { Database } from '../lib/database.ts';
import type { KeycloakAdmin } from '../lib/keycloak-admin.ts';
import type { Directory } from './directory.ts';
import { createEventReader } from '../lib/event-reader.ts';
import type { LiveWork } from './live-work.ts';
import type { Logout } from './logout.ts';
import type { SessionStore } from './session-store.ts';

export interface KeycloakEventsDeps {
  keycloakAdmin: KeycloakAdmin;
  database: Database;
  directory: Directory;
  liveWork: LiveWork;
  store: SessionStore;
  logout: Logout;
}

/** What a list of events asks of us. */
export interface Orders {
  /** Users who were changed in some way. */
  touchedUserIds: string[];
  /** Users whom an administrator signed out, with the time. */
  loggedOutUsers: { userId: string; atMs: number }[];
  /** Keycloak's sessions that ended. */
  endedSessionIds: string[];
  /** The latest time at which the whole realm was signed out. */
  everyoneAtMs: number | undefined;
}

/** A user's own event, of type LOGOUT. */
const LogoutEvent = z.object({ id: z.string(), time: z.number(), sessionId: z.string().nullish() });
export type LogoutEvent = z.output<typeof LogoutEvent>;

/** Resource types that matter: REALM only for "log out all sessions". */
const RESOURCE_TYPES = ['USER', 'USER_SESSION', 'REALM'];

/** Reads admin events. Disabling a user sends no back-channel logout: these events are the only sign. */
export function ordersOfAdminEvents(events: readonly AdminEvent[]): Orders {
  const orders: Orders = {
    touchedUserIds: [],
    loggedOutUsers: [],
    endedSessionIds: [],
    everyoneAtMs: undefined,
  };
  for (const event of events) {
    const [kind, id, action] = (event.resourcePath ?? '').split('/');
    const atMs = event.time;
    const userId = touchedUserId(event);
    if (userId !== undefined) {
      orders.touchedUserIds.push(userId);
      if (action === 'logout') orders.loggedOutUsers.push({ userId, atMs });
    } else if (kind === 'sessions' && id) {
      orders.endedSessionIds.push(id);
    } else if (kind === 'logout-all') {
      orders.everyoneAtMs = Math.max(orders.everyoneAtMs ?? 0, atMs);
    }
  }
  orders.touchedUserIds = [...new Set(orders.touchedUserIds)];
  return orders;
}

/** Keycloak's sessions that users ended themselves; the back-channel tells too, unless we were down. */
export function sessionsOfLogoutEvents(events: readonly LogoutEvent[]): string[] {
  return events.flatMap((event) => (event.sessionId ? [event.sessionId] : []));
}

/** Builds the poll of both streams. It throws when Keycloak or the database is away; nothing is lost by that. */
export function createKeycloakEvents(deps: KeycloakEventsDeps): () => Promise<void> {
  const { keycloakAdmin } = deps;
  const { realm } = keycloakAdmin;

  const readAdminEvents = createEventReader({
    database: deps.database,
    cursorName: realm,
    fetchPage: adminEventPages(keycloakAdmin, RESOURCE_TYPES),
    handle: (events) => obey(deps, ordersOfAdminEvents(events)),
  });

  const readLogouts = createEventReader({
    database: deps.database,
    cursorName: `${realm} logouts`,
    fetchPage: async ({ dateFromMs, first, max }) => {
      const query = { realm, first, max, dateFrom: String(dateFromMs), type: 'LOGOUT' as const };
      const events = await keycloakAdmin.call((client) => client.realms.findEvents(query));
      return z.array(LogoutEvent).parse(events);
    },
    handle: (events) => deps.logout.endKeycloakSessions(sessionsOfLogoutEvents(events)),
  });

  return async () => {
    await Promise.all([readAdminEvents(), readLogouts()]);
  };
}

export interface DeletedUsersDeps extends Pick<KeycloakEventsDeps, 'keycloakAdmin' | 'database'> {
  /** May be told of the same user again, by each process and after a failure. */
  onUserDeleted: (userId: string) => Promise<void>;
}

/**
 * Builds the poll for users whom an administrator has deleted. By its own cursor: what follows from it may
 * take long or fail, and signing others out must not wait for that. A user who is merely not found is never
 * taken for deleted: a mistyped realm, or LDAP being away, answers 404 for everybody.
 */
export function createDeletedUsers(deps: DeletedUsersDeps): () => Promise<void> {
  const { keycloakAdmin } = deps;

  async function isGone(id: string): Promise<boolean> {
    // The client answers null on 404, where its type says undefined.
    const user: unknown = await keycloakAdmin.call((client) => client.users.findOne({ id }));
    return user === null || user === undefined;
  }

  return createEventReader<AdminEvent>({
    database: deps.database,
    cursorName: `${keycloakAdmin.realm} deleted users`,
    fetchPage: adminEventPages(keycloakAdmin, ['USER']),
    async handle(events) {
      const ids = events.map(deletedUserId).filter((id) => id !== undefined);
      // One that is there again was imported under the same id.
      for (const id of new Set(ids)) if (await isGone(id)) await deps.onUserDeleted(id);
    },
  });
}

async function obey(deps: KeycloakEventsDeps, orders: Orders): Promise<void> {
  for (const id of orders.touchedUserIds) deps.directory.forget(id);
  if (orders.everyoneAtMs !== undefined) await deps.logout.endEveryoneUntil(orders.everyoneAtMs);
  for (const { userId, atMs } of orders.loggedOutUsers) await deps.logout.endUserUntil(userId, atMs);
  await deps.logout.endKeycloakSessions(orders.endedSessionIds);
  // Only those who are signed in or at work here: a realm may have many others.
  const atWork = deps.liveWork.userIds().filter((id) => orders.touchedUserIds.includes(id));
  const present = new Set([...atWork, ...(await deps.store.withSession(orders.touchedUserIds))]);
  for (const id of present) {
    if ((await deps.directory.findUser(id)) === undefined) await deps.logout.endUser(id);
  }
}
