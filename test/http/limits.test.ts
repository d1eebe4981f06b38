import { EventEmitter } from 'node:events';
import type { Request, Response } from 'express';
import { describe, expect, it } from '@jest/globals';
import { createOpenRequestLimit, createRefusedBodyLimit } from '../../src/http/limits.ts';
import express from 'express';
import supertest from 'supertest';
import { createErrorHandler } from '../../src/http/errors.ts';
import { createRequestContext } from '../../src/http/request-context.ts';
import type { Principal } from '../../src/http/principal.ts';
import { mountRoutes, rawRoute, type RawRoute, type Route } from '../../src/http/route.ts';
import { AppError, isAppError } from '../../src/lib/errors.ts';
import { createLog } from '../../src/lib/log.ts';

/** What the limit uses of a response. */
function createResponse(): Response {
  return Object.assign(new EventEmitter(), { destroyed: false }) as unknown as Response;
}

function close(response: Response): void {
  response.destroyed = true;
  response.emit('close');
}

const LONG_MS = 60_000;

/** A limit with requests that are tried in order, and the outcome of each so far. */
function createRequests(maxOpen: number, queue?: { maxQueued: number; waitMs: number }) {
  const limit = createOpenRequestLimit(maxOpen, queue);
  return (count: number, user = 'u1') =>
    Array.from({ length: count }, () => {
      const response = createResponse();
      const request = { response, outcome: 'waiting', settled: Promise.resolve() };
      request.settled = limit.acquire(user, response).then(
        () => void (request.outcome = 'open'),
        (error: unknown) => void (request.outcome = isAppError(error) ? error.code : 'another error'),
      );
      return request;
    });
}

type Requests = ReturnType<ReturnType<typeof createRequests>>;

/** The outcomes, once every request that can go on has done so. */
async function outcomesOf(requests: Requests): Promise<string[]> {
  await new Promise(setImmediate);
  return requests.map(({ outcome }) => outcome);
}

const closeAll = (requests: Requests) => {
  for (const { response } of requests) close(response);
};

describe('a limit of open requests', () => {
  it('without a queue refuses the next request at once, with Retry-After', async () => {
    const begin = createRequests(2);
    const requests = begin(3);
    expect(await outcomesOf(requests)).toEqual(['open', 'open', 'rate_limited']);
    const limit = createOpenRequestLimit(0);
    await expect(limit.acquire('u1', createResponse())).rejects.toMatchObject({
      status: 429,
      headers: { 'retry-after': '1' },
    });
  });

  it('counts each user apart', async () => {
    const begin = createRequests(1);
    expect(await outcomesOf([...begin(1, 'u1'), ...begin(1, 'u2'), ...begin(1, 'u1')])).toEqual([
      'open',
      'open',
      'rate_limited',
    ]);
  });

  it('passes each slot to the request that has waited longest, and never has more open', async () => {
    const begin = createRequests(2, { maxQueued: 3, waitMs: LONG_MS });
    const requests = begin(6);
    const [first] = requests;
    if (first === undefined) throw new Error('no request began');
    expect(await outcomesOf(requests)).toEqual([
      ...['open', 'open', 'waiting', 'waiting', 'waiting', 'rate_limited'],
    ]);
    close(first.response);
    expect(await outcomesOf(requests)).toEqual([
      ...['open', 'open', 'open', 'waiting', 'waiting', 'rate_limited'],
    ]);
    // A place in the queue is free again, but no slot.
    const later = begin(2);
    expect(await outcomesOf(later)).toEqual(['waiting', 'rate_limited']);
    closeAll([...requests, ...later]);
    expect(await outcomesOf(begin(2))).toEqual(['open', 'open']);
  });

  it('refuses a request that has waited for the whole time', async () => {
    const begin = createRequests(1, { maxQueued: 1, waitMs: 20 });
    const [open, waiting] = begin(2);
    await waiting?.settled;
    expect([open?.outcome, waiting?.outcome]).toEqual(['open', 'rate_limited']);
  });

  it('frees the place of a client that disconnects while it waits', async () => {
    const begin = createRequests(1, { maxQueued: 1, waitMs: LONG_MS });
    const [open, gone] = begin(2);
    if (open === undefined || gone === undefined) throw new Error('no request began');
    close(gone.response);
    const [next] = begin(1);
    expect(await outcomesOf([gone])).toEqual(['rate_limited']);
    close(open.response);
    await next?.settled;
    expect(next?.outcome).toBe('open');
    closeAll(next === undefined ? [] : [next]);
  });

  it('loses no slot when the client disconnects at the moment at which it gets one', async () => {
    const begin = createRequests(1, { maxQueued: 1, waitMs: LONG_MS });
    const [open, waiting] = begin(2);
    if (open === undefined || waiting === undefined) throw new Error('no request began');
    close(open.response);
    close(waiting.response);
    await outcomesOf([waiting]);
    expect(await outcomesOf(begin(1))).toEqual(['open']);
  });
});

describe('the limit of refused bodies', () => {
  const refuse = () => Promise.reject(new AppError('validation_failed', 'refused'));

  it.each<[string, Record<string, string>, string]>([
    ['does not count a request without a body', {}, 'validation_failed'],
    ['does not count an empty body', { 'content-length': '0' }, 'validation_failed'],
    ['counts a body', { 'content-length': '1' }, 'rate_limited'],
    ['counts a body of unknown length', { 'transfer-encoding': 'chunked' }, 'rate_limited'],
  ])('%s', async (_name, headers, code) => {
    const limit = createRefusedBodyLimit();
    const request = { headers, socket: { bytesRead: 0 } } as unknown as Request;
    for (let count = 0; count < 4_000; count += 1)
      await limit.run('u1', request, refuse).catch(() => undefined);
    await expect(limit.run('u1', request, refuse)).rejects.toMatchObject({ code });
  });
});

const createPrincipal = (id: string, change: Partial<Principal> = {}): Principal => ({
  user: { id, username: '', email: null, name: null, tier: 'free' },
  ...{ credential: 'session', scopes: new Set(), token: null, sessionId: null, keycloakSessionId: null },
  ...change,
});

/** Routes with one limit of the rate. The user is the one of the header `x-user`, on the free tier. */
function serveRoutes(routes: readonly Route[], change: Partial<Principal> = {}) {
  const app = express();
  app.use(createRequestContext(createLog('silent'), () => undefined));
  let audited = 0;
  mountRoutes(app, routes, {
    authenticate: (request) => Promise.resolve(createPrincipal(String(request.headers['x-user']), change)),
    refuseCrossSite: () => undefined,
    auditTierRefusal: () => Promise.resolve(void (audited += 1)),
  });
  app.use(createErrorHandler([]));
  const http = supertest(app.listen(0, '127.0.0.1').unref());
  const get = (path: string, user: string) => http.get(path).set('x-user', user);
  const call = async (path: string, user: string) => (await get(path, user)).status;
  return { get, call, audited: () => audited };
}

const handle: RawRoute['handle'] = (_call, _request, response) => void response.json({});
const declare = (path: string, change: Partial<RawRoute> = {}) =>
  rawRoute({ method: 'get', path, access: 'session', handle, ...change });
const ownLimit = () => ({ openRequestLimit: createOpenRequestLimit(64) });

it('a user has a rate on all routes together that have no limit of their own', async () => {
  const { get, call } = serveRoutes([declare('/one'), declare('/two'), declare('/own', ownLimit())]);
  for (let count = 0; count < 1_200; count += 1)
    expect(await call(count % 2 === 0 ? '/one' : '/two', 'a')).toBe(200);
  const refused = await get('/one', 'a');
  expect(refused.status).toBe(429);
  expect(refused.body).toMatchObject({ code: 'rate_limited' });
  expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
  expect([await call('/two', 'a'), await call('/own', 'a'), await call('/one', 'b')]).toEqual([
    429, 200, 200,
  ]);
});

it.each<[string, Partial<RawRoute>, Partial<Principal>]>([
  ['tier', { tier: 'starter' }, {}],
  ['tier, on a route with a limit of its own', { tier: 'starter', ...ownLimit() }, {}],
  ['scope', { access: { scope: 'chat' } }, { credential: 'bearer' }],
  [
    'scope, on a route with a limit of its own',
    { access: { scope: 'chat' }, ...ownLimit() },
    { credential: 'bearer' },
  ],
])('requests that are refused by %s count in the rate of the user', async (_name, route, principal) => {
  const { get, call, audited } = serveRoutes([declare('/refused', route), declare('/one')], principal);
  for (let count = 0; count < 1_200; count += 1) expect(await call('/refused', 'a')).toBe(403);
  expect((await get('/refused', 'a')).body).toMatchObject({ code: 'rate_limited' });
  expect(await call('/refused', 'b')).toBe(403);
  expect(audited()).toBe(route.tier === undefined ? 0 : 1_201);
});
