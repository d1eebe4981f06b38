import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import express from 'express';
import supertest from 'supertest';
import type { Response } from 'undici';
import { createContext } from '../../src/context.ts';
import { SCOPES, type Principal, type Scope } from '../../src/http/principal.ts';
import { createErrorHandler } from '../../src/http/errors.ts';
import { createRequestContext } from '../../src/http/request-context.ts';
import type { Access } from '../../src/http/authorization.ts';
import { mountRoutes, rawRoute, type RawRoute, type Route } from '../../src/http/route.ts';
import { createLog } from '../../src/lib/log.ts';
import { TIERS, type Tier } from '../../src/config/tiers.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { apiTokens, createApiClient } from '../support/keycloak-tokens.ts';
import { makeOperator } from '../support/operator.ts';
import { createUser } from '../support/stack.ts';
import { createToken } from '../support/token.ts';

type Row = readonly [method: Route['method'], path: string, access: Access, tier?: Tier];

const KEYS_READ = { scope: 'keys:read' } as const;
const KEYS_WRITE = { scope: 'keys:write' } as const;
const CHAT = { scope: 'chat' } as const;
const RUN = { scope: 'run' } as const;

/** Every route and who may call it. Add a row for a new route; change a row only with a reason. */
const TABLE: readonly Row[] = [
  ['get', '/livez', 'public'],
  ['get', '/readyz', 'public'],
  ['get', '/', 'public'],
  ['get', '/welcome', 'public'],
  ['get', '/keys', 'public'],
  ['get', '/servers', 'public'],
  ['get', '/servers/:id', 'public'],
  ['get', '/runs', 'public'],
  ['get', '/runs/:id', 'public'],
  ['get', '/tokens', 'public'],
  ['get', '/audit', 'public'],
  ['get', '/settings', 'public'],
  ['get', '/assets/:name', 'public'],
  ['get', '/auth/login', 'public'],
  ['get', '/auth/callback', 'public'],
  // Ends the session of its cookie and has its own cross-site check.
  ['post', '/auth/logout', 'public'],
  // Authenticated by Keycloak's signature.
  ['post', '/auth/backchannel-logout', 'public'],
  ['get', '/api/v1/me', KEYS_READ],
  ['get', '/api/v1/about', 'session'],
  // Also needs the role ops-operator.
  ['get', '/api/v1/operator', 'session'],
  ['get', '/api/v1/onboarding', 'session'],
  ['put', '/api/v1/onboarding', 'session'],
  // A token sees and ends no sign-in.
  ['get', '/api/v1/sessions', 'session'],
  ['delete', '/api/v1/sessions/:id', 'session'],
  ['get', '/api/v1/usage', KEYS_READ],
  ['get', '/api/v1/usage/requests', KEYS_READ],
  ['get', '/api/v1/usage/requests/:id', KEYS_READ],
  ['get', '/api/v1/byok/providers', KEYS_READ],
  ['get', '/api/v1/byok/keys', KEYS_READ],
  ['get', '/api/v1/byok/stats', KEYS_READ],
  ['get', '/api/v1/byok/route', KEYS_READ],
  ['post', '/api/v1/byok/keys/add', KEYS_WRITE, 'starter'],
  ['patch', '/api/v1/byok/keys/:provider/:key_id', KEYS_WRITE, 'starter'],
  ['post', '/api/v1/byok/keys/test/:provider', KEYS_WRITE, 'starter'],
  ['delete', '/api/v1/byok/keys/:provider', KEYS_WRITE],
  // A token creates no other token.
  ['post', '/api/v1/tokens', 'session'],
  ['get', '/api/v1/tokens', 'session'],
  ['delete', '/api/v1/tokens/:id', 'session'],
  ['get', '/api/v1/execution-servers', 'session'],
  ['get', '/api/v1/execution-servers/default', 'session'],
  ['get', '/api/v1/execution-servers/:id', 'session'],
  ['post', '/api/v1/execution-servers', 'session', 'starter'],
  ['put', '/api/v1/execution-servers/:id', 'session', 'starter'],
  // A downgraded user can still delete stored servers.
  ['delete', '/api/v1/execution-servers/:id', 'session'],
  ['post', '/api/v1/execution-servers/:id/host-key', 'session', 'starter'],
  ['post', '/api/v1/execution-servers/test', 'session', 'starter'],
  ['post', '/api/v1/execution-servers/:id/test', 'session', 'starter'],
  ['post', '/api/v1/execution-servers/ssh-keypair', 'session', 'starter'],
  ['post', '/api/v1/execution-servers/default/run', RUN, 'starter'],
  ['post', '/api/v1/execution-servers/:id/run', RUN, 'starter'],
  ['get', '/api/v1/runs', RUN],
  ['get', '/api/v1/runs/:id', RUN],
  ['get', '/api/v1/runs/:id/events', RUN],
  ['delete', '/api/v1/runs/:id', RUN],
  ['get', '/api/v1/audit', 'session'],
  ['get', '/v1', 'public'],
  ['post', '/v1/chat/completions', CHAT],
  ['post', '/v1/messages', CHAT],
  ['post', '/v1/messages/count_tokens', CHAT],
  ['post', '/v1/responses', CHAT],
  ['get', '/v1/responses/:id', CHAT, 'starter'],
  ['delete', '/v1/responses/:id', CHAT, 'starter'],
  ['post', '/v1/responses/:id/cancel', CHAT, 'starter'],
  ['get', '/v1/responses/:id/input_items', CHAT, 'starter'],
  // These two say that there are no WebSockets.
  ['get', '/v1/responses', CHAT],
  ['get', '/v1/realtime', CHAT],
  ['post', '/v1/embeddings', CHAT],
  ['get', '/v1/models', CHAT],
  ['get', '/v1/models/*id', CHAT],
  // The last one, since it ends the session that the tests call with.
  ['delete', '/api/v1/sessions', 'session'],
];
const PROTECTED = TABLE.filter(([, , access]) => access !== 'public');
const PUBLIC = TABLE.filter(([, , access]) => access === 'public');

let app: TestApp;
/** Headers by credential and tier. */
let credentials: Record<'session' | 'bearer' | 'free session', Record<string, string>>;
/** Headers of a token with each single scope. */
const tokens = new Map<Scope, Record<string, string>>();

beforeAll(async () => {
  const apiClient = await createApiClient();
  app = await startApp({ env: { API_CLIENT_IDS: apiClient } });
  const [user, free] = [await createUser({ tier: 'starter' }), await createUser({ tier: 'free' })];
  for (const { id } of [user, free]) await makeOperator(id);
  credentials = {
    session: { cookie: `session=${await app.signIn(user)}` },
    bearer: { authorization: `Bearer ${(await apiTokens(apiClient, user)).access_token}` },
    'free session': { cookie: `session=${await app.signIn(free)}` },
  };
  const session = await app.signIn(user);
  for (const scope of SCOPES) {
    const { token } = await createToken(app, session, { scopes: [scope] });
    tokens.set(scope, { 'x-api-key': token });
  }
});
afterAll(async () => {
  await app.stop();
});

/** Calls a route without input. A caller that passes the guards gets the route's own 4xx. */
function call([method, path]: Row, headers: Record<string, string> = {}): Promise<Response> {
  return app.call(path.replace(':provider', 'openai').replace(':key_id', 'abcDEF123456'), {
    method: method.toUpperCase(),
    headers,
  });
}

async function readRefusal(response: Response): Promise<{ status: number; code: unknown }> {
  const body = JSON.parse((await response.text()) || '{}') as {
    code?: unknown;
    error?: { code?: unknown; type?: unknown; message?: string };
  };
  return { status: response.status, code: body.error?.code ?? body.code ?? toCode(body.error ?? {}) };
}

/** Errors of Anthropic's protocol have no code. */
function toCode({ type, message = '' }: { type?: unknown; message?: string }): string | undefined {
  if (type === 'authentication_error') return 'unauthenticated';
  if (type !== 'permission_error') return undefined;
  return message.startsWith('This credential has no access to this route.')
    ? 'scope_required'
    : 'tier_required';
}

const REFUSALS = ['unauthenticated', 'scope_required', 'tier_required', 'csrf'];

async function expectPassed(response: Response): Promise<void> {
  const { status, code } = await readRefusal(response);
  expect(REFUSALS).not.toContain(code);
  // `DELETE` finds no key, `add` and `chat` find no body, a GET finds no WebSocket: all of them passed the guards.
  expect([200, 400, 404, 405, 503]).toContain(status);
}

describe('the route table', () => {
  it('has a row for every route and a route for every row', async () => {
    const context = createContext(app.config);
    const rows = context.routes.map(({ method, path, access, tier }) => ({ method, path, access, tier }));
    await context.close();
    const name = ({ path, method }: (typeof rows)[number]) => `${path} ${method}`;
    const byName = (a: (typeof rows)[number], b: (typeof rows)[number]) => (name(a) < name(b) ? -1 : 1);
    expect(rows.sort(byName)).toEqual(
      TABLE.map(([method, path, access, tier]) => ({ method, path, access, tier })).sort(byName),
    );
  });

  it('lists all paths: others get a 404', async () => {
    const { session } = credentials;
    for (const path of ['/api/v1', '/api/v1/byok', '/api/v1/byok/keys/openai/x/y', '/auth', '/metrics'])
      expect((await app.call(path, { headers: session })).status).toBe(404);
  });
});

describe('without a credential', () => {
  it.each(PROTECTED)('%s %s answers 401', async (...row) => {
    expect(await readRefusal(await call(row))).toEqual({ status: 401, code: 'unauthenticated' });
  });

  it.each(PUBLIC)('%s %s is public', async (...row) => {
    expect([401, 403]).not.toContain((await call(row)).status);
  });
});

describe('with a session', () => {
  it.each(PROTECTED)('%s %s is allowed', async (...row) => {
    await expectPassed(await call(row, credentials.session));
  });

  it.each(PROTECTED)('%s %s names its tier to a user below it and is allowed without one', async (...row) => {
    const response = await call(row, credentials['free session']);
    const [, , , tier] = row;
    if (tier === undefined) return expectPassed(response);
    expect(response.status).toBe(403);
    const body = (await response.json()) as { error?: object };
    expect(body.error ?? body).toMatchObject({
      code: 'tier_required',
      required_tier: tier,
      current_tier: 'free',
    });
  });
});

describe('with a Keycloak access token', () => {
  it.each(PROTECTED)(
    '%s %s is allowed by the scopes chat and keys:read and refused otherwise',
    async (...row) => {
      const response = await call(row, credentials.bearer);
      if (row[2] === KEYS_READ || row[2] === CHAT) return expectPassed(response);
      expect(await readRefusal(response)).toEqual({ status: 403, code: 'scope_required' });
    },
  );
});

describe('with a personal token', () => {
  const cases = SCOPES.flatMap((scope) => PROTECTED.map((row) => ({ scope, row })));

  it.each(cases)('of the scope $scope $row.0 $row.1 follows the table', async ({ scope, row }) => {
    const response = await call(row, tokens.get(scope));
    const [, , access] = row;
    if (typeof access === 'object' && access.scope === scope) return expectPassed(response);
    expect(await readRefusal(response)).toEqual({ status: 403, code: 'scope_required' });
  });
});

describe('every credential and scope', () => {
  const cases = PROTECTED.flatMap((row) =>
    (['session', 'bearer', 'token'] as const).flatMap((credential) =>
      [[], ...SCOPES.map((scope) => [scope]), [...SCOPES]].map((scopes) => ({ row, credential, scopes })),
    ),
  );

  it.each(cases)('$row.0 $row.1 by $credential with $scopes follows the table', async (one) => {
    const { row, credential, scopes } = one;
    const [, , access, least] = row;
    for (const tier of TIERS) {
      const isScoped = typeof access === 'object' && scopes.includes(access.scope);
      const isBelow = least !== undefined && TIERS.indexOf(tier) < TIERS.indexOf(least);
      const expected =
        credential !== 'session' && !isScoped ? 'scope_required' : isBelow ? 'tier_required' : 'admitted';
      expect(await callAs(row, createPrincipal(credential, scopes, tier))).toBe(expected);
    }
  });
});

/** Mounts a route as declared in the table and calls it as that principal. Returns the code of the response. */
async function callAs([method, path, access, tier]: Row, principal: Principal): Promise<unknown> {
  const server = express();
  server.use(createRequestContext(createLog('silent'), () => undefined));
  const handle: RawRoute['handle'] = (_call, _request, response) => void response.json({ code: 'admitted' });
  const route = rawRoute({ method, path, access, handle, ...(tier === undefined ? {} : { tier }) });
  const gate = {
    authenticate: () => Promise.resolve(principal),
    refuseCrossSite: () => undefined,
    auditTierRefusal: () => Promise.resolve(),
  };
  mountRoutes(server, [route], gate);
  server.use(createErrorHandler([]));
  const response = await supertest(server)[method](path);
  return (response.body as { code?: unknown }).code;
}

function createPrincipal(
  credential: Principal['credential'],
  scopes: readonly Scope[],
  tier: Tier,
): Principal {
  return {
    user: { id: 'id', username: 'name', email: null, name: null, tier },
    credential,
    scopes: new Set(scopes),
    token: null,
    sessionId: null,
    keycloakSessionId: null,
  };
}

describe('a route declaration', () => {
  const route = rawRoute({ method: 'get', path: '/x', access: 'session', handle: () => undefined });
  const gate = {
    authenticate: () => Promise.reject(new Error('not called')),
    refuseCrossSite: () => undefined,
    auditTierRefusal: () => Promise.resolve(),
  };

  it('without access is refused at start', () => {
    const { access: _access, ...undeclared } = route;
    expect(() => mountRoutes(express(), [undeclared as Route], gate)).toThrow('get /x declares no access');
  });

  it('that occurs twice is refused at start', () => {
    expect(() => mountRoutes(express(), [route, route], gate)).toThrow('get /x is declared twice');
  });
});
