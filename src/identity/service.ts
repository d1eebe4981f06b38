import { createRefusalTrail, writeAuditEvent } from '../audit/service.ts';
import { createCrossSiteGuard } from '../http/cross-site-guard.ts';
import type { Principal } from '../http/principal.ts';
import type { RouteGuards, Route } from '../http/route.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { NotificationListener } from '../lib/postgres/notification-listener.ts';
import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { createKeycloakFetch } from '../lib/keycloak/keycloak-fetch.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Log } from '../lib/log.ts';
import { userOwner } from '../lib/owner.ts';
import { createAuthenticator } from './authenticator.ts';
import { createUserCache, type UserCache } from './user-cache.ts';
import { createUserConnections, type UserConnections } from './user-connections.ts';
import { createDeletedUserPoll, createKeycloakEventPoll } from './keycloak-events.ts';
import { createActiveWork, type ActiveWork } from './active-work.ts';
import { createLocalExecution, hasOperatorRole, type LocalExecution } from './local-execution.ts';
import { createLoginStates } from './login-state.ts';
import { createLogout, type Logout } from './logout.ts';
import { createPoller, type Poller } from '../lib/async/poller.ts';
import { createOidcClient } from './oidc.ts';
import { identityRoutes } from './routes.ts';
import { createSessionRefresh } from './session-refresh.ts';
import { createSessionCookie } from './session-cookie.ts';
import { createSessionStore, SESSIONS_CHANNEL, type SessionStore } from './session-store.ts';
import { createSessions } from './sessions.ts';
import { createSignInFlow } from './sign-in.ts';
import { createSignInCheck, createActiveWorkCheck, createEndedSessionCheck } from './active-work-check.ts';
import { createTokenVerifier } from './token-verifier.ts';
import { createUserSessions } from './user-sessions.ts';
import type { TokenAuthentication } from '../tokens/service.ts';

export type { UserCache } from './user-cache.ts';
export type { WorkEndReason, EndWork, ActiveWork } from './active-work.ts';
export type { LocalExecution } from './local-execution.ts';

/** The part of the configuration that identity needs. */
export interface IdentityConfig {
  mode: 'local' | 'deployed';
  publicUrl: string;
  sessionSecret: string;
  sessionCookieName: string;
  apiClientIds: readonly string[];
  localExecution: boolean;
  keycloak: { url: string; internalUrl: string; realm: string; web: { id: string; secret: string } };
}

export interface IdentityDeps {
  config: IdentityConfig;
  database: Database;
  keyring: Keyring;
  /** Admin client of the main realm, signed in as the service client. */
  keycloakAdmin: KeycloakAdmin;
  personalTokens: TokenAuthentication;
  /** The caller starts it. */
  notifications: Pick<NotificationListener, 'onNotification'>;
  log: Log;
  /** The connections to the servers of users, which other features keep between requests. */
  serverConnections: Pick<UserConnections, 'userIds' | 'close'>;
  /**
   * Called after an administrator deleted a user and Keycloak no longer returns that user. Can be called more than
   * once per user, and is called again after it throws.
   */
  onUserDeleted?: (userId: string) => Promise<void>;
}

/** Sign-in, sessions, and the current data of users. */
export interface Identity {
  userCache: UserCache;
  activeWork: ActiveWork;
  localExecution: LocalExecution;
  /** See {@link hasOperatorRole}. */
  isOperator(userId: string): Promise<boolean>;
  /** Returns true if the principal's sign-in or token has not been ended, according to the database. */
  isSignInValid(principal: Principal): Promise<boolean>;
  /** For `mountRoutes`. */
  guards: RouteGuards;
  routes: Route[];
  /** Starts polling Keycloak's events and checking active work. Resolves after the first poll, even if it fails. */
  start(): Promise<void>;
  /** Stops polling. Does not end active work: the caller drains it. */
  stop(): Promise<void>;
}

const KEYCLOAK_TIMEOUT_MS = 5_000;
const EVENT_POLL_INTERVAL_MS = 2_000;
const ACTIVE_WORK_CHECK_INTERVAL_MS = 5_000;
const PRUNE_INTERVAL_MS = 10 * 60_000;

/** Makes no request to Keycloak or the database before `start` or the first HTTP request. */
export function createIdentity(deps: IdentityDeps): Identity {
  const { config, database, keyring, keycloakAdmin, serverConnections, personalTokens, log } = deps;
  const secure = config.mode !== 'local';
  const { publicUrl, sessionCookieName: cookieName, sessionSecret } = config;
  const { url, internalUrl, realm, web } = config.keycloak;
  const fetch = createKeycloakFetch(KEYCLOAK_TIMEOUT_MS);

  const userCache = createUserCache({ keycloakAdmin });
  const activeWork = createActiveWork();
  personalTokens.onDeleted((id) => {
    activeWork.endToken(id);
  });
  const localExecution = createLocalExecution({ isOn: config.localExecution, keycloakAdmin });
  const store = createSessionStore(database);
  const connections = createUserConnections();
  const logout = createLogout({ store, activeWork, connections, serverConnections });
  const sessionCookie = createSessionCookie(cookieName, sessionSecret);
  const sessions = createSessions({
    ...{ database, secret: sessionSecret, cookieName, sessionCookie, store, secure, log },
  });
  const loginStates = createLoginStates({ sessionSecret, cookieName, secure });
  const oidc = createOidcClient({ url, internalUrl, realm, web, publicUrl, fetch, log });
  const { apiClientIds } = config;
  const tokens = createTokenVerifier({ url, internalUrl, realm, webClientId: web.id, apiClientIds, fetch });
  const refreshIfDue = createSessionRefresh({ oidc, keyring, store, logout });
  const authenticate = createAuthenticator({
    ...{ sessions, userCache, refreshIfDue, tokens, personalTokens, store, logout, connections },
  });
  const refuseCrossSite = createCrossSiteGuard(publicUrl);
  const refusals = createRefusalTrail({ database, log });
  const signIn = createSignInFlow({
    ...{ publicUrl, oidc, loginStates, sessionCookie, sessions },
    ...{ store, keyring, userCache, activeWork, logout },
    recordSignIn: (userId, requestId) => recordSignIn(database, userId, requestId),
  });
  endWorkWithSessions(deps, createEndedSessionCheck({ activeWork, store }));
  const pollers = createPollers(deps, {
    ...{ userCache, activeWork, connections, localExecution, store, logout },
  });

  return {
    userCache,
    activeWork,
    localExecution,
    isOperator: (userId) => hasOperatorRole(keycloakAdmin, userId),
    isSignInValid: createSignInCheck({ store, personalTokens }),
    guards: {
      authenticate,
      refuseCrossSite,
      auditTierRefusal: ({ user }, route, requestId) => {
        const object = `route:${route.method.toUpperCase()} ${route.path}`;
        return refusals.record({ owner: userOwner(user.id), object, requestId });
      },
    },
    routes: identityRoutes({
      ...{ sessionCookie, signIn, tokens, store, logout, refuseCrossSite },
      canRunLocally: localExecution.isAllowed,
      userSessions: createUserSessions({ database, keyring, store, activeWork, oidc }),
      clearCookie: sessions.clearCookie,
    }),
    async start() {
      await Promise.all(pollers.map((poller) => poller.start()));
    },
    async stop() {
      await Promise.all(pollers.map((poller) => poller.stop()));
      await refusals.flush();
      sessions.close();
    },
  };
}

/** A notification only lowers the delay: the check of active work finds the same. */
function endWorkWithSessions(
  { notifications, log }: IdentityDeps,
  endWorkOfEndedSessions: () => Promise<void>,
): void {
  notifications.onNotification(SESSIONS_CHANNEL, () => {
    endWorkOfEndedSessions().catch((error: unknown) => {
      log.warn({ err: error }, 'the work of ended sessions could not be found; the next check repeats that');
    });
  });
}

interface PollerDeps {
  userCache: UserCache;
  activeWork: ActiveWork;
  connections: UserConnections;
  localExecution: LocalExecution;
  store: SessionStore;
  logout: Logout;
}

/** What runs beside the requests: who was changed or signed out in Keycloak, and whose work may go on. */
function createPollers(
  { database, keycloakAdmin, serverConnections, personalTokens, log, onUserDeleted }: IdentityDeps,
  deps: PollerDeps,
): Poller[] {
  const pollKeycloakEvents = createKeycloakEventPoll({ keycloakAdmin, database, ...deps });
  const checkActiveWork = createActiveWorkCheck({ ...deps, serverConnections, personalTokens });
  const pollers = [
    createPoller('reading the events of Keycloak', EVENT_POLL_INTERVAL_MS, pollKeycloakEvents, log),
    createPoller('checking running work', ACTIVE_WORK_CHECK_INTERVAL_MS, checkActiveWork, log),
    createPoller('pruning logout markers', PRUNE_INTERVAL_MS, () => deps.store.prune(), log),
  ];
  if (onUserDeleted === undefined) return pollers;
  const pollDeletedUsers = createDeletedUserPoll({ keycloakAdmin, database, ...deps, onUserDeleted });
  return [
    ...pollers,
    createPoller('looking for deleted users', EVENT_POLL_INTERVAL_MS, pollDeletedUsers, log),
  ];
}

async function recordSignIn(database: Database, userId: string, requestId: string): Promise<void> {
  const owner = userOwner(userId);
  const event = { owner, actor: owner, action: 'session.started', object: 'session', requestId } as const;
  await database.withOwner(owner, (sql) => writeAuditEvent(sql, event));
}
