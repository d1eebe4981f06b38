import { recordAudit, type AuditEvent } from '../audit/service.ts';
import { createCrossSiteCheck } from '../http/cross-site.ts';
import type { Principal } from '../http/principal.ts';
import type { Gate, Route } from '../http/routes.ts';
import type { Database } from '../lib/database.ts';
import type { KeycloakAdmin } from '../lib/keycloak-admin.ts';
import { createKeycloakFetch } from '../lib/keycloak-fetch.ts';
import type { Keyring } from '../lib/keyring.ts';
import type { Log } from '../lib/log.ts';
import { userOwner } from '../lib/owner.ts';
import { createAuthenticator } from './authenticator.ts';
import { createDirectory, type Directory } from './directory.ts';
import { createDeletedUsers, createKeycloakEvents } from './keycloak-events.ts';
import { createLiveWork, type LiveWork } from './live-work.ts';
import { createLocalExecution, type LocalExecution } from './local-execution.ts';
import { createLoginStates } from './login-state.ts';
import { createLogout } from './logout.ts';
import { createLoop } from '../lib/loop.ts';
import { createOidc } from './oidc.ts';
import { identityRoutes } from './routes.ts';
import { createSessionRefresh } from './session-refresh.ts';
import { createSessionStore } from './session-store.ts';
import { createSessions } from './sessions.ts';
import { createSignIn } from './sign-in.ts';
import { createStanding, createSweep } from './sweep.ts';
import { createTokenVerifier } from './tokens.ts';

export type { Directory } from './directory.ts';
export type { EndReason, LiveWork } from './live-work.ts';
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
  /** The main realm, as the service client. */
  keycloakAdmin: KeycloakAdmin;
  log: Log;
  /**
   * Called when an administrator has deleted a user, and Keycloak confirms it; more than once, and again when
   * it throws.
   */
  onUserDeleted?: (userId: string) => Promise<void>;
}

/** Who people are: sign-in, sessions, and what is known of users right now. */
export interface Identity {
  directory: Directory;
  liveWork: LiveWork;
  localExecution: LocalExecution;
  /** Whether the sign-in by which a principal came in still stands, as the database knows it now. */
  isStanding(principal: Principal): Promise<boolean>;
  /** For `mountRoutes`. */
  gate: Gate;
  routes: Route[];
  /** Begins to watch Keycloak's events and the running work. Resolves after the first look, good or bad. */
  start(): Promise<void>;
  /** Ends the watching; running work is the caller's to drain. */
  stop(): Promise<void>;
}

const KEYCLOAK_TIMEOUT_MS = 5_000;
const READ_EVENTS_EVERY_MS = 2_000;
const SWEEP_EVERY_MS = 5_000;
const PRUNE_EVERY_MS = 10 * 60_000;

/** Builds identity. Nothing is asked of Keycloak or the database before `start` or a request. */
export function createIdentity(deps: IdentityDeps): Identity {
  const { config, database, keyring, keycloakAdmin, log } = deps;
  const secure = config.mode !== 'local';
  const { publicUrl, sessionCookieName: cookieName, sessionSecret } = config;
  const { url, internalUrl, realm, web } = config.keycloak;
  const fetch = createKeycloakFetch(KEYCLOAK_TIMEOUT_MS);

  const directory = createDirectory({ keycloakAdmin });
  const liveWork = createLiveWork();
  const localExecution = createLocalExecution({ isOn: config.localExecution, keycloakAdmin });
  const store = createSessionStore(database);
  const logout = createLogout({ store, liveWork });
  const sessions = createSessions({ database, secret: sessionSecret, cookieName, secure, log });
  const loginStates = createLoginStates({ sessionSecret, cookieName, secure });
  const oidc = createOidc({ url, internalUrl, realm, web, publicUrl, fetch, log });
  const { apiClientIds } = config;
  const tokens = createTokenVerifier({ url, internalUrl, realm, webClientId: web.id, apiClientIds, fetch });
  const refreshIfDue = createSessionRefresh({ oidc, keyring, store, logout });
  const authenticate = createAuthenticator({
    sessions,
    cookieName,
    directory,
    refreshIfDue,
    tokens,
    store,
    logout,
  });
  const refuseCrossSite = createCrossSiteCheck(publicUrl);
  const signIn = createSignIn({
    publicUrl,
    oidc,
    loginStates,
    sessions,
    store,
    keyring,
    directory,
    liveWork,
    logout,
    recordSignIn: (userId, requestId) =>
      record(database, userId, { action: 'session.started', object: 'session', requestId }),
  });
  const readEvents = createKeycloakEvents({ keycloakAdmin, database, directory, liveWork, store, logout });
  const sweep = createSweep({ liveWork, store, directory, logout });
  const loops = [
    createLoop('reading the events of Keycloak', READ_EVENTS_EVERY_MS, readEvents, log),
    createLoop('checking running work', SWEEP_EVERY_MS, sweep, log),
    createLoop('pruning logout markers', PRUNE_EVERY_MS, () => store.prune(), log),
  ];
  if (deps.onUserDeleted !== undefined) {
    const readDeleted = createDeletedUsers({ keycloakAdmin, database, onUserDeleted: deps.onUserDeleted });
    loops.push(createLoop('looking for deleted users', READ_EVENTS_EVERY_MS, readDeleted, log));
  }

  return {
    directory,
    liveWork,
    localExecution,
    isStanding: createStanding(store),
    gate: {
      authenticate,
      refuseCrossSite,
      recordTierRefusal: ({ user }, route, requestId) => {
        const object = `route:${route.method.toUpperCase()} ${route.path}`;
        return record(database, user.id, { action: 'tier.refused', object, requestId });
      },
    },
    routes: identityRoutes({
      ...{ cookieName, signIn, tokens, store, logout, refuseCrossSite },
      mayRunLocally: localExecution.isAllowed,
    }),
    async start() {
      await Promise.all(loops.map((loop) => loop.start()));
    },
    async stop() {
      await Promise.all(loops.map((loop) => loop.stop()));
      sessions.close();
    },
  };
}

/** Puts what a person did, or was refused, on their audit trail. */
async function record(
  database: Database,
  userId: string,
  event: Pick<AuditEvent, 'action' | 'object' | 'requestId'>,
): Promise<void> {
  const owner = userOwner(userId);
  await database.withOwner(owner, (sql) => recordAudit(sql, { owner, actor: owner, ...event }));
}
