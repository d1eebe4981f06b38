import type { ActiveWork } from './active-work.ts';
import type { StoredSession } from './schema.ts';
import type { SessionStore } from './session-store.ts';
import type { UserConnections } from './user-connections.ts';

/**
 * Ends sessions. A logout marker is a row that invalidates all sign-ins up to a time. A logout writes the marker,
 * deletes the sessions' rows and ends the active work, in this order. The marker is committed before the rows are
 * deleted, and a sign-in saves its row before it reads the markers: one of the two finds the other, so that a logout
 * during a sign-in wins. In one transaction the delete could miss a row that is saved before the marker is visible.
 */
export interface Logout {
  /**
   * Ends all sessions of a missing or disabled user, and closes the user's connections, also those to servers. Writes
   * no marker, because the time is not known.
   */
  endUser(userId: string): Promise<void>;
  /** After a logout by an administrator: ends the user's sign-ins up to a time (Keycloak's clock, epoch ms). */
  endUserUntil(userId: string, notAfterMs: number): Promise<void>;
  /** After a logout of the whole realm: ends all sign-ins up to a time. */
  endAllUntil(notAfterMs: number): Promise<void>;
  /** After Keycloak ended sessions. Compares no time, because Keycloak does not reuse session ids. */
  endKeycloakSessions(keycloakSessionIds: string[]): Promise<void>;
  /** Signs a user out of the app. The Keycloak session can continue, so only sign-ins up to now are ended. */
  endSession(session: StoredSession): Promise<void>;
}

export interface LogoutDeps {
  store: SessionStore;
  activeWork: ActiveWork;
  connections: Pick<UserConnections, 'close'>;
  serverConnections: Pick<UserConnections, 'close'>;
}

export function createLogout({ store, activeWork, connections, serverConnections }: LogoutDeps): Logout {
  function endSessionWork(sessionIds: string[]): void {
    for (const id of sessionIds) activeWork.endSession(id);
  }

  return {
    async endUser(userId) {
      activeWork.endUser(userId);
      connections.close(userId);
      serverConnections.close(userId);
      endSessionWork(await store.deleteUserSessions(userId, Infinity));
    },
    async endUserUntil(userId, notAfterMs) {
      await store.markUser(userId, notAfterMs);
      endSessionWork(await store.deleteUserSessions(userId, notAfterMs));
      activeWork.endUser(userId, notAfterMs);
    },
    async endAllUntil(notAfterMs) {
      await store.markAllUsers(notAfterMs);
      endSessionWork(await store.deleteAllSessions(notAfterMs));
      activeWork.endAll(notAfterMs);
    },
    async endKeycloakSessions(ids) {
      if (ids.length === 0) return;
      await store.markKeycloakSessions(ids, Infinity);
      endSessionWork(await store.deleteKeycloakSessions(ids, Infinity));
      for (const id of ids) activeWork.endKeycloakSession(id);
    },
    async endSession(session) {
      // The app's clock can be behind Keycloak's. The marker must still cover this session.
      const notAfterMs = Math.max(Date.now(), session.signedInAtMs);
      const ids = [session.keycloakSessionId];
      await store.markKeycloakSessions(ids, notAfterMs);
      endSessionWork(await store.deleteKeycloakSessions(ids, notAfterMs));
      endSessionWork(await store.deleteSession(session.id));
      activeWork.endSession(session.id);
    },
  };
}
