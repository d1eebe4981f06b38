import type { Principal } from '../http/principal.ts';
import type { Directory } from './directory.ts';
import type { LiveWork } from './live-work.ts';
import type { Logout } from './logout.ts';
import type { SessionStore } from './session-store.ts';

export interface SweepDeps {
  liveWork: LiveWork;
  store: SessionStore;
  directory: Directory;
  logout: Logout;
}

/** With a sweep every 5 s, work of a user who vanished without an event ends within 10 s. */
const MAX_USER_AGE_MS = 4_000;
const USERS_AT_ONCE = 10;

/**
 * Builds the sweep over running work: what no event told this process (another instance ended the session, a
 * directory behind Keycloak disabled the user, the session's time is over) is found here.
 */
export function createSweep(deps: SweepDeps): () => Promise<void> {
  async function endWithoutSession(): Promise<void> {
    const ids = deps.liveWork
      .principals()
      .flatMap(({ sessionId }) => (sessionId === null ? [] : [sessionId]));
    if (ids.length === 0) return;
    const standing = await deps.store.standingOf([...new Set(ids)]);
    for (const id of ids) if (!standing.has(id)) deps.liveWork.endSession(id);
  }

  async function endLoggedOutBearers(): Promise<void> {
    for (const principal of deps.liveWork.principals()) {
      if (principal.credential === 'session') continue;
      if (await deps.store.isLoggedOut(signInOf(principal))) deps.liveWork.endPrincipal(principal);
    }
  }

  async function endWithoutUser(): Promise<void> {
    const ids = deps.liveWork.userIds();
    for (let at = 0; at < ids.length; at += USERS_AT_ONCE) {
      await Promise.all(
        ids.slice(at, at + USERS_AT_ONCE).map(async (id) => {
          if ((await deps.directory.findUser(id, MAX_USER_AGE_MS)) === undefined)
            await deps.logout.endUser(id);
        }),
      );
    }
  }

  return async () => {
    await endWithoutSession();
    await endLoggedOutBearers();
    await endWithoutUser();
  };
}

/** Builds the same question about one sign-in, for work that waited before it began. */
export function createStanding(store: SessionStore): (principal: Principal) => Promise<boolean> {
  return async (principal) => {
    const { sessionId } = principal;
    if (sessionId === null) return !(await store.isLoggedOut(signInOf(principal)));
    return (await store.standingOf([sessionId])).has(sessionId);
  };
}

function signInOf(principal: Principal) {
  return {
    userId: principal.user.id,
    keycloakSessionId: principal.keycloakSessionId,
    signedInAtMs: principal.signedInAtMs ?? 0,
  };
}
