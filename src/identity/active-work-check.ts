import type { Principal } from '../http/principal.ts';
import type { UserCache } from './user-cache.ts';
import type { ActiveWork } from './active-work.ts';
import type { LocalExecution } from './local-execution.ts';
import type { Logout } from './logout.ts';
import type { SessionStore } from './session-store.ts';
import type { UserConnections } from './user-connections.ts';
import type { TokenAuthentication } from '../tokens/service.ts';

export interface ActiveWorkCheckDeps {
  activeWork: ActiveWork;
  connections: Pick<UserConnections, 'userIds'>;
  store: SessionStore;
  personalTokens: Pick<TokenAuthentication, 'listValidIds'>;
  userCache: UserCache;
  localExecution: Pick<LocalExecution, 'isAllowed'>;
  logout: Logout;
  serverConnections: Pick<UserConnections, 'userIds'>;
}

/**
 * The check runs every 5 s, so work of a user who was disabled, deleted, given a lower tier or taken out of a role without
 * an event ends within 10 s.
 */
const MAX_USER_AGE_MS = 4_000;
const MAX_CONCURRENT_LOOKUPS = 10;
/** Users without active work who are looked up in one check. With more of them, a check takes those that waited longest. */
const MAX_IDLE_USERS = 300;

/**
 * Creates the check that ends active work of invalid sign-ins and closes connections of disabled users, also those to
 * their servers: an ended run opens one to clean up. It covers what causes no event in this process: another instance
 * has ended the session, an LDAP directory has disabled the user, or the session has expired.
 */
export function createActiveWorkCheck(deps: ActiveWorkCheckDeps): () => Promise<void> {
  const takeTurns = createTurns(MAX_IDLE_USERS);
  const endWorkOfEndedSessions = createEndedSessionCheck(deps);

  async function endWorkOfLoggedOutTokens(): Promise<void> {
    const withToken = deps.activeWork.principals().filter(({ credential }) => credential === 'bearer');
    // Each request has a principal of its own.
    const bySignIn = Map.groupBy(withToken, (principal) => JSON.stringify(toSignInRef(principal)));
    for (const [first, ...others] of bySignIn.values())
      if (first !== undefined && (await deps.store.isLoggedOut(toSignInRef(first))))
        for (const principal of [first, ...others]) deps.activeWork.endPrincipal(principal);
  }

  async function endWorkOfChangedUsers(): Promise<void> {
    const working = new Set([...deps.activeWork.userIds(), ...deps.serverConnections.userIds()]);
    const idle = deps.connections.userIds().filter((id) => !working.has(id));
    await checkUsers([...working, ...takeTurns(idle)], async (id) => {
      const user = await deps.userCache.findUser(id, MAX_USER_AGE_MS);
      if (user === undefined) await deps.logout.endUser(id);
      else deps.activeWork.endAboveTier(id, user.tier);
    });
  }

  /** Also of expired tokens, and of those whose revocation was not notified. */
  async function endWorkOfRevokedTokens(): Promise<void> {
    const ids = deps.activeWork.principals().flatMap(({ token }) => (token === null ? [] : [token.id]));
    if (ids.length === 0) return;
    const validIds = await deps.personalTokens.listValidIds([...new Set(ids)]);
    for (const id of ids) if (!validIds.has(id)) deps.activeWork.endToken(id);
  }

  /** The role can come from a group or another role, whose changes cause no event of the user. */
  async function endWorkOfFormerOperators(): Promise<void> {
    await checkUsers(deps.activeWork.operatorIds(), async (id) => {
      if (!(await deps.localExecution.isAllowed(id))) deps.activeWork.endOperatorWork(id);
    });
  }

  return async () => {
    // Operators first, since the last check also looks up users without work. Each is made also after another has failed.
    const checks = [
      endWorkOfEndedSessions,
      endWorkOfLoggedOutTokens,
      endWorkOfRevokedTokens,
      endWorkOfFormerOperators,
      endWorkOfChangedUsers,
    ];
    const results: PromiseSettledResult<void>[] = [];
    for (const check of checks) results.push(...(await Promise.allSettled([check()])));
    throwFirstError(results);
  };
}

/** The part of the check for sessions, which also follows each notification that some were deleted. */
export function createEndedSessionCheck({
  activeWork,
  store,
}: Pick<ActiveWorkCheckDeps, 'activeWork' | 'store'>): () => Promise<void> {
  return async () => {
    const ids = activeWork.principals().flatMap(({ sessionId }) => (sessionId === null ? [] : [sessionId]));
    if (ids.length === 0) return;
    const validIds = await store.listValidSessionIds([...new Set(ids)]);
    for (const id of ids) if (!validIds.has(id)) activeWork.endSession(id);
  };
}

/** Checks users, some at a time. @throws the first error, after all users were checked. */
async function checkUsers(ids: readonly string[], check: (id: string) => Promise<void>): Promise<void> {
  const results: PromiseSettledResult<void>[] = [];
  for (let at = 0; at < ids.length; at += MAX_CONCURRENT_LOOKUPS)
    results.push(...(await Promise.allSettled(ids.slice(at, at + MAX_CONCURRENT_LOOKUPS).map(check))));
  throwFirstError(results);
}

function throwFirstError(results: readonly PromiseSettledResult<void>[]): void {
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

/** @returns a function that returns at most `max` of the given ids, those first that it has not returned for longest. */
function createTurns(max: number): (ids: string[]) => string[] {
  /** The present ids that were returned before; the last one most recently. */
  const returned = new Set<string>();
  return (ids) => {
    const present = new Set(ids);
    for (const id of returned) if (!present.has(id)) returned.delete(id);
    const next = [...ids.filter((id) => !returned.has(id)), ...returned].slice(0, max);
    for (const id of next) {
      returned.delete(id);
      returned.add(id);
    }
    return next;
  };
}

/** Checks one credential in the database, for work that waited in a queue before it started. */
export function createSignInCheck({
  store,
  personalTokens,
}: Pick<ActiveWorkCheckDeps, 'store' | 'personalTokens'>): (principal: Principal) => Promise<boolean> {
  return async (principal) => {
    const { sessionId, token } = principal;
    if (token !== null) return (await personalTokens.listValidIds([token.id])).has(token.id);
    if (sessionId === null) return !(await store.isLoggedOut(toSignInRef(principal)));
    return (await store.listValidSessionIds([sessionId])).has(sessionId);
  };
}

function toSignInRef(principal: Principal) {
  return {
    userId: principal.user.id,
    keycloakSessionId: principal.keycloakSessionId,
    signedInAtMs: principal.signedInAtMs ?? 0,
  };
}
