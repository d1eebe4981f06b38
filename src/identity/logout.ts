import type { ActiveWork } from './active-work.ts';
import type { StoredSession } from './schema.ts';
import type { SessionStore } from './session-store.ts';

/**
 * Every way in which sessions end. The order is always: marker, rows, live work. The marker is committed before
 * the rows are deleted, and a sign-in saves its row before it looks for markers: so whichever of the two is
 * later sees the other, and a logout that arrives while a sign-in is under way wins. (In one transaction the
 * delete could miss a row that is saved while the marker is not visible yet.)
 */
export interface Logout {
  /** The user is missing or disabled: all their sessions end. Without a marker, since no time is known. */
  endUser(userId: string): Promise<void>;
  /** An administrator signed the user out: ends what was signed in up to then (Keycloak's clock, epoch ms). */
  endUserUntil(userId: string, notAfterMs: number): Promise<void>;
  /** An administrator signed the whole realm out. */
  endAllUntil(notAfterMs: number): Promise<void>;
  /** Keycloak ended these sessions of its own; their ids never come back, so no time is compared. */
  endKeycloakSessions(keycloakSessionIds: string[]): Promise<void>;
  /** The user signs out here; Keycloak's session may live on, so only what was signed in until now ends. */
  endSession(session: StoredSession): Promise<void>;
}

export interface LogoutDeps {
  store: SessionStore;
  activeWork: ActiveWork;
}

export function createLogout({ store, activeWork }: LogoutDeps): Logout {
  function endSessionWork(sessionIds: string[]): void {
    for (const id of sessionIds) activeWork.endSession(id);
  }

  return {
    async endUser(userId) {
      activeWork.endUser(userId);
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
      // Our clock may be behind Keycloak's; the session itself must be covered in any case.
      const notAfterMs = Math.max(Date.now(), session.signedInAtMs);
      const ids = [session.keycloakSessionId];
      await store.markKeycloakSessions(ids, notAfterMs);
      endSessionWork(await store.deleteKeycloakSessions(ids, notAfterMs));
      endSessionWork(await store.deleteSession(session.id));
      activeWork.endSession(session.id);
    },
  };
}
