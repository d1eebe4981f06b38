import express from 'express';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pino } from 'pino';
import { z } from 'zod';
import { SESSION_COOKIE_NAMES } from '../../src/config/config.ts';
import { createErrorHandler } from '../../src/http/errors.ts';
import { createHostGuard } from '../../src/http/host-guard.ts';
import { createRequestContext } from '../../src/http/request-context.ts';
import { jsonRoute, mountRoutes, rawRoute } from '../../src/http/route.ts';
import { createIdentity, type WorkEndReason, type Identity } from '../../src/identity/service.ts';
import { createUserConnections } from '../../src/identity/user-connections.ts';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createKeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { createNotificationListener } from '../../src/lib/postgres/notification-listener.ts';
import { createTokenService, type TokenService } from '../../src/tokens/service.ts';
import { evidence } from './evidence.ts';
import { createDatabase } from './database.ts';
import { createWebClient, stack, type ClientCredentials } from './stack.ts';

export interface IdentityAppOptions {
  apiClientIds?: string[];
  /** Address of Keycloak for the app, e.g. of a proxy that can be cut. */
  keycloakInternalUrl?: string;
  /** For a second instance: the first one, whose database and secrets it shares. */
  sharedWith?: IdentityApp;
  /** Secure cookies with the default names of a deployment. */
  isDeployed?: boolean;
  /** Whether events are polled and active work is checked; true by default. */
  watch?: boolean;
}

/** The identity feature with a few routes, listening on a free port of loopback. */
export interface IdentityApp {
  publicUrl: string;
  identity: Identity;
  tokens: TokenService;
  database: Database;
  /** Number of calls of the admin client to Keycloak so far. */
  keycloakCalls(): number;
  databaseUrl: { appUrl: string; ownerUrl: string };
  webClient: ClientCredentials;
  secrets: { session: string; encryption: string };
  logLines: string[];
  /** Why the work started by `GET /api/v1/work` was ended, in order. */
  ended: WorkEndReason[];
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts an app with its own database and web client. */
export async function startIdentityApp(options: IdentityAppOptions = {}): Promise<IdentityApp> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const publicUrl = `http://localhost:${String((server.address() as AddressInfo).port)}`;
  const { sharedWith } = options;
  const databaseUrl = sharedWith?.databaseUrl ?? (await createDatabase());
  const webClient = await createWebClient(publicUrl);
  const secrets = sharedWith?.secrets ?? {
    session: randomBytes(32).toString('hex'),
    encryption: `${randomBytes(32).toString('base64url')}=`,
  };
  const logLines: string[] = [];
  evidence.registerSecret('session secret', secrets.session);
  evidence.registerSecret('encryption key', secrets.encryption);
  evidence.registerSecret('client secret', webClient.secret);
  const write = (line: string) => {
    logLines.push(line);
    evidence.recordLog(line);
  };
  const log = pino({ level: 'debug' }, { write });
  const database = openDatabase({ url: databaseUrl.appUrl, max: 8, applicationName: 'identity-test', log });
  const internalUrl = options.keycloakInternalUrl ?? stack.keycloak.url;
  const { serviceClient, realm, url } = stack.keycloak;
  const mode = options.isDeployed === true ? 'deployed' : 'local';
  const notifications = createNotificationListener({ url: databaseUrl.appUrl, log });
  const tokens = createTokenService({ database, notifications, log });
  const keycloakAdmin = createKeycloakAdmin({
    baseUrl: internalUrl,
    realm,
    clientId: serviceClient.id,
    clientSecret: serviceClient.secret,
  });
  let keycloakCalls = 0;
  const identity = createIdentity({
    config: {
      mode,
      publicUrl,
      sessionSecret: secrets.session,
      sessionCookieName: SESSION_COOKIE_NAMES[mode],
      localExecution: false,
      apiClientIds: options.apiClientIds ?? [],
      keycloak: { url, internalUrl, realm, web: webClient },
    },
    database,
    keyring: createKeyring([secrets.encryption]),
    keycloakAdmin: {
      ...keycloakAdmin,
      call(work) {
        keycloakCalls += 1;
        return keycloakAdmin.call(work);
      },
    },
    personalTokens: tokens,
    notifications,
    serverConnections: createUserConnections(),
    log,
  });
  await notifications.start();
  const ended: WorkEndReason[] = [];
  server.on('request', createApp(identity, publicUrl, log, ended));
  if (options.watch ?? true) await identity.start();
  const close = async () => {
    await identity.stop();
    await closeServer(server);
    await tokens.flush();
    await notifications.stop();
    await database.close();
  };
  return {
    publicUrl,
    identity,
    tokens,
    database,
    keycloakCalls: () => keycloakCalls,
    databaseUrl,
    webClient,
    secrets,
    logLines,
    ended,
    close,
    [Symbol.asyncDispose]: close,
  };
}

function createApp(identity: Identity, publicUrl: string, log: pino.Logger, ended: WorkEndReason[]) {
  const app = express();
  app.set('query parser', 'simple');
  app.use(createRequestContext(log, () => undefined));
  app.use(createHostGuard({ mode: 'local', publicUrl, internalUrl: publicUrl }));
  const write = jsonRoute({
    method: 'post',
    path: '/api/v1/write',
    access: 'session',
    response: z.object({ done: z.boolean() }),
    handle: () => ({ done: true }),
  });
  const chat = jsonRoute({
    method: 'post',
    path: '/v1/chat',
    access: { scope: 'chat' },
    response: z.object({ user: z.string() }),
    handle: ({ principal }) => ({ user: principal.user.id }),
  });
  const work = rawRoute({
    method: 'get',
    path: '/api/v1/work',
    access: { scope: 'chat' },
    handle({ principal }, _request, response) {
      if (principal === null) throw new Error('the route has no principal');
      const unregister = identity.activeWork.register(principal, (reason) => {
        ended.push(reason);
        response.end(`event: end\ndata: ${reason}\n\n`);
      });
      response.once('close', unregister);
      response.setHeader('content-type', 'text/event-stream');
      response.write(': begun\n\n');
    },
  });
  mountRoutes(app, [...identity.routes, write, chat, work], identity.guards);
  app.use(createErrorHandler([]));
  return app;
}

async function closeServer(server: Server): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  server.closeAllConnections();
  await closed;
}
