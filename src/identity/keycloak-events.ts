import { z } from 'zod';
import {
  createAdminEventFetcher,
  findDeletedUserId,
  findAffectedUserId,
  type AdminEvent,
} from '../lib/keycloak/admin-events.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import type { UserCache } from './user-cache.ts';
import { createKeycloakEventReader } from '../lib/keycloak/keycloak-event-reader.ts';
import type { ActiveWork } from './active-work.ts';
import type { Logout } from './logout.ts';
import type { SessionStore } from './session-store.ts';

export interface KeycloakEventPollDeps {
  keycloakAdmin: KeycloakAdmin;
  database: Database;
  userCache: UserCache;
  activeWork: ActiveWork;
  store: SessionStore;
  logout: Logout;
}

/** What a list of events asks of us. */
export interface AdminEventChanges {
  /** Users who were changed in some way. */
  changedUserIds: string[];
  /** Users whom an administrator signed out, with the time. */
  loggedOutUsers: { userId: string; atMs: number }[];
  /** Keycloak's sessions that ended. */
  endedSessionIds: string[];
  /** The latest time at which the whole realm was signed out. */
  allLoggedOutAtMs: number | undefined;
}

/** A user's own event, of type LOGOUT. */
const LogoutEvent = z.object({ id: z.string(), time: z.number(), sessionId: z.string().nullish() });
export type LogoutEvent = z.output<typeof LogoutEvent>;

/** Resource types that matter: REALM only for "log out all sessions". */
const RESOURCE_TYPES = ['USER', 'USER_SESSION', 'REALM'];

/** Reads admin events. Disabling a user sends no back-channel logout: these events are the only sign. */
export function toAdminEventChanges(events: readonly AdminEvent[]): AdminEventChanges {
  const changes: AdminEventChanges = {
    changedUserIds: [],
    loggedOutUsers: [],
    endedSessionIds: [],
    allLoggedOutAtMs: undefined,
  };
  for (const event of events) {
    const [kind, id, action] = (event.resourcePath ?? '').split('/');
    const atMs = event.time;
    const userId = findAffectedUserId(event);
    if (userId !== undefined) {
      changes.changedUserIds.push(userId);
      if (action === 'logout') changes.loggedOutUsers.push({ userId, atMs });
    } else if (kind === 'sessions' && id) {
      changes.endedSessionIds.push(id);
    } else if (kind === 'logout-all') {
      changes.allLoggedOutAtMs = Math.max(changes.allLoggedOutAtMs ?? 0, atMs);
    }
  }
  changes.changedUserIds = [...new Set(changes.changedUserIds)];
  return changes;
}

/** Keycloak's sessions that users ended themselves; the back-channel tells too, unless we were down. */
export function toEndedSessionIds(events: readonly LogoutEvent[]): string[] {
  return events.flatMap((event) => (event.sessionId ? [event.sessionId] : []));
}

/** Builds the poll of both streams. It throws when Keycloak or the database is away; nothing is lost by that. */
export function createKeycloakEventPoll(deps: KeycloakEventPollDeps): () => Promise<void> {
  const { keycloakAdmin } = deps;
  const { realm } = keycloakAdmin;

  const readAdminEvents = createKeycloakEventReader({
    database: deps.database,
    cursorName: realm,
    fetchPage: createAdminEventFetcher(keycloakAdmin, RESOURCE_TYPES),
    handle: (events) => applyChanges(deps, toAdminEventChanges(events)),
  });

  const readLogouts = createKeycloakEventReader({
    database: deps.database,
    cursorName: `${realm} logouts`,
    fetchPage: async ({ dateFromMs, first, max }) => {
      const query = { realm, first, max, dateFrom: String(dateFromMs), type: 'LOGOUT' as const };
      const events = await keycloakAdmin.call((client) => client.realms.findEvents(query));
      return z.array(LogoutEvent).parse(events);
    },
    handle: (events) => deps.logout.endKeycloakSessions(toEndedSessionIds(events)),
  });

  return async () => {
    await Promise.all([readAdminEvents(), readLogouts()]);
  };
}

export interface DeletedUserPollDeps extends Pick<KeycloakEventPollDeps, 'keycloakAdmin' | 'database'> {
  /** May be told of the same user again, by each process and after a failure. */
  onUserDeleted: (userId: string) => Promise<void>;
}

/**
 * Builds the poll for users whom an administrator has deleted. By its own cursor: what follows from it may
 * take long or fail, and signing others out must not wait for that. A user who is merely not found is never
 * taken for deleted: a mistyped realm, or LDAP being away, answers 404 for everybody.
 */
export function createDeletedUserPoll(deps: DeletedUserPollDeps): () => Promise<void> {
  const { keycloakAdmin } = deps;

  async function isDeleted(id: string): Promise<boolean> {
    // The client answers null on 404, where its type says undefined.
    const user: unknown = await keycloakAdmin.call((client) => client.users.findOne({ id }));
    return user === null || user === undefined;
  }

  return createKeycloakEventReader<AdminEvent>({
    database: deps.database,
    cursorName: `${keycloakAdmin.realm} deleted users`,
    fetchPage: createAdminEventFetcher(keycloakAdmin, ['USER']),
    async handle(events) {
      const ids = events.map(findDeletedUserId).filter((id) => id !== undefined);
      // One that is there again was imported under the same id.
      for (const id of new Set(ids)) if (await isDeleted(id)) await deps.onUserDeleted(id);
    },
  });
}

async function applyChanges(deps: KeycloakEventPollDeps, changes: AdminEventChanges): Promise<void> {
  for (const id of changes.changedUserIds) deps.userCache.invalidate(id);
  if (changes.allLoggedOutAtMs !== undefined) await deps.logout.endAllUntil(changes.allLoggedOutAtMs);
  for (const { userId, atMs } of changes.loggedOutUsers) await deps.logout.endUserUntil(userId, atMs);
  await deps.logout.endKeycloakSessions(changes.endedSessionIds);
  // Only those who are signed in or at work here: a realm may have many others.
  const withActiveWork = deps.activeWork.userIds().filter((id) => changes.changedUserIds.includes(id));
  const affectedUserIds = new Set([
    ...withActiveWork,
    ...(await deps.store.listUsersWithSession(changes.changedUserIds)),
  ]);
  for (const id of affectedUserIds) {
    if ((await deps.userCache.findUser(id)) === undefined) await deps.logout.endUser(id);
  }
}
