import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { fetch } from 'undici';
import { startApp, type TestApp } from '../support/app.ts';
import { startCutProxy, type CutProxy } from '../support/cut-proxy.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { blockDatabase } from '../support/database.ts';
import { createUser, stack } from '../support/stack.ts';
import { findStreamError, readEventStream } from '../support/stream.ts';
import { until } from '../support/until.ts';
import { answer, startUpstream, type Upstream } from '../support/upstream.ts';

const CHAT = '/v1/chat/completions';
const hello = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };

let openai: Upstream;
let keycloak: CutProxy;
let app: TestApp;
let session: string;
/** Session of a user without active work. */
let idleSession: string;
let key: string;

beforeAll(async () => {
  openai = await startUpstream();
  keycloak = await startCutProxy(stack.keycloak.url);
  app = await startApp({ env: { UPSTREAM_OPENAI_URL: openai.url, KEYCLOAK_INTERNAL_URL: keycloak.url } });
  session = await app.signIn(await createUser({ tier: 'starter' }));
  idleSession = await app.signIn(await createUser({ tier: 'starter' }));
  key = openAiKey();
  await addKey(app, session, { provider: 'openai', key });
});
afterAll(async () => {
  await app.stop();
  await keycloak.close();
  await openai.stop();
});
afterEach(() => {
  openai.reset();
});

const chat = (more: object = {}) => app.call(CHAT, { method: 'POST', session, json: { ...hello, ...more } });

type Answered = [status: number, body: unknown];

async function ask(path: string): Promise<Answered> {
  const response = await app.call(path, { session });
  return [response.status, await response.json()];
}

async function details(): Promise<Answered> {
  const response = await fetch(`http://127.0.0.1:${app.config.metricsPort}/readyz`);
  return [response.status, await response.json()];
}

/** Waits until the probe has the new state. It caches its result for one second. */
async function expectReadiness(expected: Record<string, 'ok' | 'failed'>): Promise<void> {
  const isReady = Object.values(expected).every((state) => state === 'ok');
  const status = isReady ? 200 : 503;
  const word = isReady ? 'ready' : 'not_ready';
  expect(await until(details, ([now]) => now === status)).toEqual([status, { status: word, ...expected }]);
  expect(await ask('/readyz')).toEqual([status, { status: word }]);
  expect(await ask('/livez')).toEqual([200, { status: 'alive' }]);
}

async function expectRefused(code: string): Promise<void> {
  const me = await until(
    () => app.call('/api/v1/me', { session: idleSession }),
    // A cached user is used for up to 10 s.
    ({ status }) => status !== 200,
  );
  expect([me.status, me.headers.get('content-type'), me.headers.get('retry-after')]).toEqual([
    503,
    'application/problem+json',
    '2',
  ]);
  expect(await me.json()).toMatchObject({ code, status: 503, title: 'Service Unavailable' });
  // The check of active work looks up the user of the stream, so that this user is used for longer.
  await until(chat, ({ status }) => status !== 200);
  openai.reset();
  const refused = await chat();
  expect([refused.status, refused.headers.get('x-ops-error-source')]).toEqual([503, 'ops-center']);
  expect(await refused.json()).toMatchObject({ error: { code, type: 'server_error', param: null } });
  expect(openai.requests).toHaveLength(0);
}

async function expectWorksAgain(): Promise<void> {
  await until(
    () => app.call('/api/v1/me', { session }),
    ({ status }) => status === 200,
  );
  const response = await chat();
  expect(response.status).toBe(200);
  expect(openai.requests.at(-1)?.key).toBe(key);
}

async function expectStreamContinues(during: () => Promise<void>): Promise<void> {
  const resume = Promise.withResolvers<undefined>();
  openai.reply(answer.held(2, resume.promise));
  const stream = readEventStream(await chat({ stream: true }));
  await stream.first;
  openai.reset();
  await during();
  resume.resolve(undefined);
  const events = await stream.events;
  expect(findStreamError(events)).toBeUndefined();
  expect(events.at(-1)).toBe('[DONE]');
}

describe('while Postgres is unavailable', () => {
  it('requests get 503 in both formats, the probes report it, a stream continues, and no restart is needed', async () => {
    await expectReadiness({ database: 'ok', migrations: 'ok', keycloak: 'ok' });
    await expectStreamContinues(async () => {
      const restore = await blockDatabase(app.databaseUrl);
      try {
        await expectRefused('database_unavailable');
        await expectReadiness({ database: 'failed', migrations: 'failed', keycloak: 'ok' });
      } finally {
        await restore();
      }
    });
    await expectWorksAgain();
    await expectReadiness({ database: 'ok', migrations: 'ok', keycloak: 'ok' });
  });

  it('the page is served, and its first call says why it cannot show more', async () => {
    const restore = await blockDatabase(app.databaseUrl);
    const [page, me] = await Promise.all([
      app.call('/', { session }),
      app.call('/api/v1/me', { session }),
    ]).finally(restore);
    expect(page.status).toBe(200);
    expect([me.status, await me.json()]).toMatchObject([
      503,
      {
        code: 'database_unavailable',
        detail: expect.stringContaining('The database cannot be reached right now.'),
      },
    ]);
    await expectWorksAgain();
  });
});
