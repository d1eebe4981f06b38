import { once } from 'node:events';
import { Agent, request, type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startApp, type CallOptions, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { startUpstream, type Upstream } from '../support/upstream.ts';

const CHAT = '/v1/chat/completions';
const RUN = '/api/v1/execution-servers/default/run';
const messages = [{ role: 'user', content: 'Hello' }];

let openai: Upstream;
let app: TestApp;
let session: string;

beforeAll(async () => {
  openai = await startUpstream();
  app = await startApp({
    env: {
      UPSTREAM_OPENAI_URL: openai.url,
      DEFAULT_LLM_PROVIDER: 'openai',
      DEFAULT_LLM_API_KEY: openAiKey(),
      DEFAULT_LLM_MODEL: 'gpt-4o',
    },
  });
  session = await app.signIn(await createUser({ tier: 'starter' }));
  await addKey(app, session, { provider: 'openai', key: openAiKey() });
});
afterAll(async () => {
  await app.stop();
  await openai.stop();
});

const post = (path: string, options: CallOptions) =>
  app.call(path, {
    method: 'POST',
    session,
    ...options,
    headers: { 'content-type': 'application/json', ...options.headers },
  });

const members = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, at) => [`-${at}`, '']));
const elements = (count: number) => Array.from({ length: count }, () => 0);
const objects = (count: number) => Array.from({ length: count }, () => members(count));

const nested = (levels: number): unknown => JSON.parse('['.repeat(levels) + ']'.repeat(levels));

/** A run whose variables have invalid names, so that each member has an error of its own. */
const run = (env: object) => ({ language: 'bash', code: '', env });

describe('a body under /api', () => {
  it.each([
    ['1,000 members in one object', run(members(1_001))],
    ['10,000 members', { ...run({}), files: objects(101) }],
    ['10,000 elements', { ...run({}), files: elements(10_001) }],
    ['100 levels', { ...run({}), files: nested(100) }],
  ])('may have at most %s', async (_rule, json) => {
    const response = await post(RUN, { json });
    const problem = (await response.json()) as { code: string; detail: string; errors?: unknown };
    expect([response.status, problem.code]).toEqual([400, 'validation_failed']);
    expect(problem.detail).toContain('1000 members in an object, 10000 in all objects, and 10000 elements');
    expect(problem.errors).toBeUndefined();
  });

  it('gets at most 100 errors in one response, with shortened names', async () => {
    const json = run({ ['x'.repeat(10_000)]: '', ...members(998) });
    const response = await post(RUN, { json: { ...json, ['y'.repeat(10_000)]: 1 } });
    const text = await response.text();
    expect(response.status).toBe(400);
    expect((JSON.parse(text) as { errors: unknown[] }).errors).toHaveLength(100);
    expect(text.length).toBeLessThan(100 * 2 * 310);
  });
});

describe('a body under /v1', () => {
  it.each([
    ['10,000 members in one object', { metadata: members(10_001) }],
    ['100,000 members', { metadata: objects(317) }],
    ['1,000,000 elements', { metadata: elements(1_000_001) }],
    ['100 levels', { metadata: nested(100) }],
  ])('may have at most %s', async (_rule, fields) => {
    const response = await post(CHAT, { json: { model: 'gpt-4o', messages, ...fields } });
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    expect([response.status, error.code]).toEqual([400, 'validation_failed']);
    expect(error.message).toContain(
      '10000 members in an object, 100000 in all objects, and 1000000 elements',
    );
  });

  it('that the system pays for counts as one of its requests when it is refused', async () => {
    const free = await app.signIn(await createUser({ tier: 'free' }));
    const remaining = async (json: object) => {
      const response = await post(CHAT, { session: free, json: { model: 'gpt-4o', messages, ...json } });
      return [response.status, /r=(\d+)/.exec(response.headers.get('ratelimit') ?? '')?.[1]];
    };
    expect(await remaining({ web_search_options: {} })).toEqual([400, '29']);
    expect(await remaining({ messages: {} })).toEqual([400, '28']);
  });
});

/** Sends the first part of a body, and the second when the response was received. @returns status and whether a connection was reused. */
async function postInParts(path: string, parts: [string, string], agent: Agent): Promise<[number, boolean]> {
  const headers = {
    cookie: `session=${session}`,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(parts.join('')),
  };
  const sent = request(`${app.url}${path}`, { method: 'POST', headers, agent });
  sent.write(parts[0]);
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  const closed = once(sent, 'close');
  sent.end(parts[1]);
  await text(response);
  await closed;
  return [response.statusCode ?? 0, sent.reusedSocket];
}

it.each([
  ['/v1', CHAT, '{"metadata":{', 10_001],
  ['/api', RUN, '{"env":{', 1_001],
])(
  'a body under %s is refused before its end arrives, which is dropped',
  async (_part, path, start, count) => {
    const excess = Object.keys(members(count)).map((name) => `"${name}":0`);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const parts: [string, string] = [start + excess.join(','), 'x'.repeat(900 * 1024)];
    expect(await postInParts(path, parts, agent)).toEqual([400, false]);
    expect(await postInParts(path, parts, agent)).toEqual([400, true]);
    agent.destroy();
  },
);

it('a response of an upstream with too much structure is a 502', async () => {
  openai.reply({ status: 200, body: { choices: [], usage: objects(317) } });
  const response = await post(CHAT, { json: { model: 'gpt-4o', messages } });
  expect([response.status, await response.json()]).toMatchObject([
    502,
    { error: { code: 'upstream_malformed' } },
  ]);
});

const chatOf = (model: string, textBytes: number) =>
  Buffer.from(JSON.stringify({ model, messages: [{ role: 'user', content: 'x'.repeat(textBytes) }] }));

describe('refused bodies of one user', () => {
  it.each([
    ['/v1', CHAT, 400, Buffer.alloc(32 * 1024 * 1024, 'x')],
    ['/v1 for an unknown model', CHAT, 404, chatOf('@preset/mine', 22 * 1024 * 1024)],
    ['/api', RUN, 400, Buffer.alloc(1024 * 1024, 'x')],
  ])(
    'under %s are no longer read beyond 64 MB a minute, while others are served',
    async (_part, path, status, body) => {
      const user = await app.signIn(await createUser({ tier: 'starter' }));
      const bytes = body.length;
      let refused = 0;
      for (;;) {
        const response = await post(path, { session: user, body });
        if (response.status === 429) {
          expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
          break;
        }
        expect(response.status).toBe(status);
        refused += 1;
      }
      expect(refused * bytes).toBeGreaterThanOrEqual(60 * 1024 * 1024);
      expect(refused * bytes).toBeLessThanOrEqual(80 * 1024 * 1024);
      // A request without a body is not limited.
      expect((await app.call('/api/v1/me', { session: user })).status).toBe(200);
      expect((await post(RUN, { json: run({}) })).status).toBe(404);
    },
  );
});
