import { randomUUID } from 'node:crypto';
import type { Response } from 'express';
import { z } from 'zod';
import { jsonRoute, type Route } from '../http/route.ts';
import type { Idempotency } from '../idempotency/service.ts';
import { onResponseClosed } from '../http/on-response-closed.ts';
import { setETag } from '../http/versions.ts';
import { generateSshKeyPair } from '../lib/ssh/private-key.ts';
import { BYOK_TIER } from '../config/tiers.ts';
import {
  ConfirmHostKey,
  CreateServer,
  ServerDeleted,
  ServerParams,
  ServerTestView,
  ServerView,
  SshKeyPair,
  TestServerDraft,
  UpdateServer,
} from './schema.ts';
import type { ServerService } from './service.ts';

const BASE = '/api/v1/execution-servers';
/** Access to the routes that add, change and test servers. */
const CHANGE_ACCESS = { access: 'session', tier: BYOK_TIER } as const;

export interface ServerRouteDeps {
  servers: ServerService;
  idempotency: Idempotency;
}

/** The signed-in user's own servers. Reading and deleting are open to every tier. Tokens are not accepted. */
export function serverRoutes(deps: ServerRouteDeps): Route[] {
  const { servers } = deps;
  return [...readRoutes(servers), createRoute(deps), ...changeRoutes(servers), ...testRoutes(servers)];
}

function readRoutes(servers: ServerService): Route[] {
  return [
    jsonRoute({
      method: 'get',
      path: BASE,
      access: 'session',
      response: z.array(ServerView),
      handle: ({ principal }) => servers.list(principal.user.id),
    }),
    // Before the route with an id, which would match `default`.
    jsonRoute({
      method: 'get',
      path: `${BASE}/default`,
      access: 'session',
      response: ServerView,
      handle: async ({ principal }, _request, response) =>
        withETag(response, await servers.getDefault(principal.user.id)),
    }),
    jsonRoute({
      method: 'get',
      path: `${BASE}/:id`,
      access: 'session',
      params: ServerParams,
      response: ServerView,
      handle: async ({ principal, params }, _request, response) =>
        withETag(response, await servers.get(principal.user.id, params.id)),
    }),
  ];
}

function createRoute({ servers, idempotency }: ServerRouteDeps): Route {
  return jsonRoute({
    method: 'post',
    path: BASE,
    ...CHANGE_ACCESS,
    body: CreateServer,
    response: ServerView,
    status: 201,
    async handle({ principal, body, requestId }, request, response) {
      const author = { userId: principal.user.id, requestId };
      const server = await idempotency.createOnce(
        { principal, request, response, input: body },
        {
          createId: randomUUID,
          create: (id) => servers.create(author, body, id),
          result: ServerView,
        },
      );
      response.setHeader('location', `${BASE}/${server.id}`);
      return withETag(response, server);
    },
  });
}

function changeRoutes(servers: ServerService): Route[] {
  return [
    jsonRoute({
      method: 'put',
      path: `${BASE}/:id`,
      ...CHANGE_ACCESS,
      params: ServerParams,
      body: UpdateServer,
      response: ServerView,
      async handle({ principal, params, body, requestId }, request, response) {
        const author = { userId: principal.user.id, requestId };
        return withETag(response, await servers.update(author, params.id, body, request.get('if-match')));
      },
    }),
    jsonRoute({
      method: 'delete',
      path: `${BASE}/:id`,
      access: 'session',
      params: ServerParams,
      response: ServerDeleted,
      handle: ({ principal, params, requestId }, request) =>
        servers.remove({ userId: principal.user.id, requestId }, params.id, request.get('if-match')),
    }),
    jsonRoute({
      method: 'post',
      path: `${BASE}/:id/host-key`,
      ...CHANGE_ACCESS,
      params: ServerParams,
      body: ConfirmHostKey,
      response: ServerView,
      handle: async ({ principal, params, body, requestId }, _request, response) =>
        withETag(response, await servers.confirmHostKey({ principal, requestId }, params.id, body)),
    }),
  ];
}

function testRoutes(servers: ServerService): Route[] {
  return [
    jsonRoute({
      method: 'post',
      path: `${BASE}/test`,
      ...CHANGE_ACCESS,
      body: TestServerDraft,
      response: ServerTestView,
      handle: ({ principal, requestId, body }, _request, response) =>
        servers.testUnsaved({ principal, requestId, disconnected: createDisconnectSignal(response) }, body),
    }),
    jsonRoute({
      method: 'post',
      path: `${BASE}/:id/test`,
      ...CHANGE_ACCESS,
      params: ServerParams,
      response: ServerTestView,
      handle: ({ principal, requestId, params }, _request, response) =>
        servers.test({ principal, requestId, disconnected: createDisconnectSignal(response) }, params.id),
    }),
    jsonRoute({
      method: 'post',
      path: `${BASE}/ssh-keypair`,
      ...CHANGE_ACCESS,
      response: SshKeyPair,
      handle() {
        const { publicKey, privateKey } = generateSshKeyPair();
        return { public_key: publicKey, private_key: privateKey };
      },
    }),
  ];
}

function withETag(response: Response, server: ServerView): ServerView {
  setETag(response, server.version);
  return server;
}

/** Aborts when the response has ended or its client has disconnected. */
function createDisconnectSignal(response: Response): AbortSignal {
  const disconnected = new AbortController();
  onResponseClosed(response, () => {
    disconnected.abort();
  });
  return disconnected.signal;
}
