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
import type { UserConnections } from './user-connections.ts';

export interface KeycloakEventPollDeps {
  keycloakAdmin: KeycloakAdmin;
  database: Database;
  userCache: UserCache;
  activeWork: ActiveWork;
  connections: Pick<UserConnections, 'userIds'>;
  store: SessionStore;
  logout: Logout;
}

/** Changes read from a list of admin events. */
export interface AdminEventChanges {
  /** Users with any change. */
  changedUserIds: string[];
  /** Users that an administrator signed out, with Keycloak's time (epoch ms). */
  loggedOutUsers: { userId: string; atMs: number }[];
  /** Ids of ended Keycloak sessions. */
  endedSessionIds: string[];
  /** Latest time at which the whole realm was signed out. */
  allLoggedOutAtMs: number | undefined;
}

/** User event of type LOGOUT. */
const LogoutEvent = z.object({ id: z.string(), time: z.number(), sessionId: z.string().nullish() });
export type LogoutEvent = z.output<typeof LogoutEvent>;

/** Resource types to read. REALM is needed only for "log out all sessions". */
const RESOURCE_TYPES = ['USER', 'USER_SESSION', 'REALM'];

/**
 * Summarizes admin events. Disabling or deleting a user sends no back-channel logout; it is reported by such an event,
 * as a change of the user.
 */
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

/** Sessions that users ended themselves. Covers back-channel calls missed while the app was down. */
export function toEndedSessionIds(events: readonly LogoutEvent[]): string[] {
  return events.flatMap((event) => (event.sessionId ? [event.sessionId] : []));
}

/**
 * Polls admin events and user events. The poll throws if Keycloak or the database is unavailable; the next poll
 * reads the same events again.
 */
export function createKeycloakEventPoll(deps: KeycloakEventPollDeps): () => Promise<void> {
  const { keycloakAdmin } = deps;
  const { realm } = keycloakAdmin;

  const readAdminEvents = createKeycloakEventReader({
    database: deps.database,
    cursorName: realm,
    fetchPage: createAdminEventFetcher(keycloakAdmin, RESOURCE_TYPES),
    async handle(events) {
      await applyChanges(deps, toAdminEventChanges(events));
      return [];
    },
  });

  const readLogouts = createKeycloakEventReader({
    database: deps.database,
    cursorName: `${realm} logouts`,
    fetchPage: async ({ dateFromMs, first, max }) => {
      const query = { realm, first, max, dateFrom: String(dateFromMs), type: 'LOGOUT' as const };
      const events = await keycloakAdmin.call((client) => client.realms.findEvents(query));
      return z.array(LogoutEvent).parse(events);
    },
    async handle(events) {
      await deps.logout.endKeycloakSessions(toEndedSessionIds(events));
      return [];
    },
  });

  return async () => {
    await Promise.all([readAdminEvents(), readLogouts()]);
  };
}

export interface DeletedUserPollDeps extends Pick<
  KeycloakEventPollDeps,
  'keycloakAdmin' | 'database' | 'userCache'
> {
  logout: Pick<Logout, 'endUser'>;
  /** Runs at least twice for a user: in each process, again for what a request stored meanwhile, and after it throws. */
  onUserDeleted: (userId: string) => Promise<void>;
}

/**
 * Polls for users that an administrator has deleted. It has its own cursor, because `onUserDeleted` can be slow or
 * fail, and that must not delay logouts. Only a delete event counts: with a mistyped realm or an unavailable
 * LDAP server, Keycloak answers 404 for every user.
 */
export function createDeletedUserPoll(deps: DeletedUserPollDeps): () => Promise<void> {
  const { keycloakAdmin } = deps;
  /** Events that were handled once. */
  const handledOnce = new Set<string>();

  async function isDeleted(id: string): Promise<boolean> {
    // The client returns null on 404, although its type says undefined.
    const user: unknown = await keycloakAdmin.call((client) => client.users.findOne({ id }));
    return user === null || user === undefined;
  }

  async function handleDeletion(event: AdminEvent, id: string): Promise<'done' | 'repeat'> {
    // Keycloak drops a deleted user from its cache only after the commit that makes the event visible. A user that
    // is still found later was imported again under the same id.
    if (!(await isDeleted(id))) return 'repeat';
    deps.userCache.invalidate(id);
    await deps.logout.endUser(id);
    await deps.onUserDeleted(id);
    // A request that was authorized before can store something after the first time.
    if (handledOnce.delete(event.id)) return 'done';
    handledOnce.add(event.id);
    return 'repeat';
  }

  return createKeycloakEventReader<AdminEvent>({
    database: deps.database,
    cursorName: `${keycloakAdmin.realm} deleted users`,
    fetchPage: createAdminEventFetcher(keycloakAdmin, ['USER']),
    async handle(events) {
      const repeated: AdminEvent[] = [];
      const failures: unknown[] = [];
      for (const event of events) {
        const id = findDeletedUserId(event);
        if (id === undefined) continue;
        try {
          if ((await handleDeletion(event, id)) === 'repeat') repeated.push(event);
        } catch (error) {
          // One user whose data cannot be removed does not keep the data of others.
          failures.push(error);
        }
      }
      if (failures.length > 0) throw failures[0];
      return repeated;
    },
  });
}

async function applyChanges(deps: KeycloakEventPollDeps, changes: AdminEventChanges): Promise<void> {
  for (const id of changes.changedUserIds) deps.userCache.invalidate(id);
  if (changes.allLoggedOutAtMs !== undefined) await deps.logout.endAllUntil(changes.allLoggedOutAtMs);
  for (const { userId, atMs } of changes.loggedOutUsers) await deps.logout.endUserUntil(userId, atMs);
  await deps.logout.endKeycloakSessions(changes.endedSessionIds);
  // A realm can have many users. Look up only those with a session, active work or a connection.
  const changed = new Set(changes.changedUserIds);
  const present = [...deps.activeWork.userIds(), ...deps.connections.userIds()].filter((id) =>
    changed.has(id),
  );
  const affectedUserIds = new Set([
    ...present,
    ...(await deps.store.listUsersWithSession(changes.changedUserIds)),
  ]);
  for (const id of affectedUserIds) {
    const user = await deps.userCache.findUser(id);
    if (user === undefined) await deps.logout.endUser(id);
    else deps.activeWork.endAboveTier(id, user.tier);
  }
}
