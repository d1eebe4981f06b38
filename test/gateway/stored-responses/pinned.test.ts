import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createDatabase } from '../../../src/lib/postgres/database.ts';
import { createLog } from '../../../src/lib/log.ts';
import { startApp, type TestApp } from '../../support/app.ts';
import { addKey, openAiKey } from '../../support/key.ts';
import { createUser } from '../../support/stack.ts';
import { bearer, createToken } from '../../support/token.ts';
import { until } from '../../support/until.ts';
import { response, responseBody, responseFrames } from '../../support/upstream/responses-frames.ts';
import { answer, startUpstream, type Upstream } from '../../support/upstream.ts';

const RESPONSES = '/v1/responses';
const hello = { model: 'gpt-4o', input: 'Hello' };
/** Enough rounds that a rotation would reach another key. */
const ROUNDS = 4;

let openai: Upstream;
let groq: Upstream;
let app: TestApp;
/** A second instance on the same database. */
let other: TestApp;
let session: string;
let otherUser: string;

beforeAll(async () => {
  openai = await startUpstream();
  groq = await startUpstream();
  const env = { UPSTREAM_OPENAI_URL: openai.url, UPSTREAM_GROQ_URL: groq.url };
  app = await startApp({ env });
  other = await startApp({ env, shared: app });
  session = await app.signIn(await createUser({ tier: 'starter' }));
  otherUser = await app.signIn(await createUser({ tier: 'starter' }));
  await addKey(app, otherUser, { provider: 'openai', key: openAiKey() });
});
afterAll(async () => {
  await other.stop();
  await app.stop();
  await openai.stop();
  await groq.stop();
});
afterEach(async () => {
  openai.reset();
  groq.reset();
  for (const provider of ['openai', 'groq'])
    await app.call(`/api/v1/byok/keys/${provider}`, { method: 'DELETE', session });
});

const send = (json: object, on = app) => on.call(RESPONSES, { method: 'POST', session, json });

/** Two keys, and a stored response that one of them made. */
async function createStored(stream = false): Promise<{ id: string; key: string; keyId: string }> {
  const keys = [openAiKey(), openAiKey()];
  const keyIds = [];
  for (const key of keys) keyIds.push(await addKey(app, session, { provider: 'openai', key }));
  const id = `resp_${crypto.randomUUID()}`;
  openai.reply(response({ id }));
  const sent = await send({ ...hello, stream });
  await sent.text();
  const key = openai.requests[0]?.key ?? '';
  openai.reset();
  return { id, key, keyId: keyIds[keys.indexOf(key)] ?? '' };
}

const keysUsed = () => new Set(openai.requests.map((request) => request.key));

describe('a stored response', () => {
  it.each([false, true])(
    'is continued with the key that made it, on every instance (streamed: %s)',
    async (stream) => {
      const { id, key, keyId } = await createStored(stream);
      openai.answerAll(response());
      for (let round = 0; round < ROUNDS; round += 1) {
        const sent = await send({ ...hello, previous_response_id: id }, round % 2 === 0 ? other : app);
        expect([sent.status, sent.headers.get('x-ops-key-id')]).toEqual([200, keyId]);
      }
      expect(openai.requests.map((request) => request.json()['previous_response_id'])).toEqual(
        Array.from({ length: ROUNDS }, () => id),
      );
      expect([...keysUsed()]).toEqual([key]);
    },
  );

  it.each<[string, string, string]>([
    ['GET', '', ''],
    [
      'GET',
      '?include[]=a&include[]=b&stream=false&starting_after=3',
      '?include%5B%5D=a&include%5B%5D=b&stream=false&starting_after=3',
    ],
    ['GET', '?api_key=x&include=a&model=y', '?include=a'],
    ['GET', '/input_items?after=a&limit=2&order=asc&before=x', '/input_items?after=a&limit=2&order=asc'],
    ['POST', '/cancel?include=a', '/cancel'],
    ['DELETE', '?include=a', ''],
  ])('passes %s %s to the key that made it, on every instance', async (method, path, sentPath) => {
    const { id, key, keyId } = await createStored();
    openai.reply((writer) => {
      const { method: received } = writer.request;
      const items = { object: 'list', data: [{ type: 'message' }], has_more: false };
      const deleted = { id, object: 'response', deleted: true };
      const whole = responseBody(writer.request, { id });
      const body = path.startsWith('/input_items') ? items : received === 'DELETE' ? deleted : whole;
      return answer.reply({ body })(writer);
    });
    const sent = await other.call(`${RESPONSES}/${id}${path}`, { method, session });
    const request = await openai.received(1);
    expect([request.method, request.path]).toEqual([method, `/v1/responses/${id}${sentPath}`]);
    expect([request.key, request.body.length, request.headers['content-type']]).toEqual([key, 0, undefined]);
    expect([sent.status, sent.headers.get('x-ops-key-id')]).toEqual([200, keyId]);
    expect(await sent.json()).toMatchObject({
      object: path.startsWith('/input_items') ? 'list' : 'response',
    });
  });

  it('is streamed again', async () => {
    const { id } = await createStored();
    let frames: string[] = [];
    openai.reply((writer) => {
      frames = responseFrames(writer.request, { id }).slice(4);
      return answer.steps(frames)(writer);
    });
    const sent = await app.call(`${RESPONSES}/${id}?stream=true&starting_after=3`, { session });
    expect(await sent.text()).toBe(frames.join(''));
    expect(openai.requests[0]?.headers.accept).toBe('text/event-stream');
  });

  it('that was deleted is not asked for again', async () => {
    const { id } = await createStored();
    openai.reply(answer.reply({ body: { id, object: 'response', deleted: true } }));
    expect((await app.call(`${RESPONSES}/${id}`, { method: 'DELETE', session })).status).toBe(200);
    expect((await app.call(`${RESPONSES}/${id}`, { session })).status).toBe(404);
    expect(openai.requests).toHaveLength(1);
  });

  it('gets the provider’s own error when the provider does not have it any more', async () => {
    const { id } = await createStored();
    openai.reply(answer.error(404, { message: 'Response not found.' }));
    const sent = await app.call(`${RESPONSES}/${id}`, { session });
    expect([sent.status, sent.headers.get('x-ops-error-source'), await sent.json()]).toMatchObject([
      404,
      'upstream',
      { error: { message: 'Response not found.' } },
    ]);
  });

  const OPERATIONS: [string, string][] = [
    ['GET', ''],
    ['DELETE', ''],
    ['POST', '/cancel'],
    ['GET', '/input_items'],
  ];

  it.each(OPERATIONS)('of another user is a 404 without a call (%s %s)', async (method, suffix) => {
    const { id } = await createStored();
    const sent = await app.call(`${RESPONSES}/${id}${suffix}`, { method, session: otherUser });
    expect([sent.status, await sent.json()]).toMatchObject([
      404,
      { error: { code: 'not_found', type: 'invalid_request_error' } },
    ]);
    expect(openai.requests).toHaveLength(0);
  });

  it('of another user cannot be continued', async () => {
    const { id } = await createStored();
    const json = { ...hello, previous_response_id: id };
    const sent = await app.call(RESPONSES, { method: 'POST', session: otherUser, json });
    expect([sent.status, await sent.json()]).toMatchObject([
      400,
      { error: { code: 'validation_failed', param: 'previous_response_id' } },
    ]);
    expect(openai.requests).toHaveLength(0);
  });

  it('of a key that is gone is a 404, and cannot be continued with another key', async () => {
    const { id, keyId } = await createStored();
    await app.call(`/api/v1/byok/keys/openai?key_id=${keyId}`, { method: 'DELETE', session });
    const read = await app.call(`${RESPONSES}/${id}`, { session });
    expect([read.status, await read.json()]).toMatchObject([404, { error: { code: 'not_found' } }]);
    const continued = await send({ ...hello, previous_response_id: id });
    expect([continued.status, await continued.json()]).toMatchObject([
      400,
      { error: { param: 'previous_response_id' } },
    ]);
    expect(openai.requests).toHaveLength(0);
  });

  it('of a key that is disabled is a 424 that names the key', async () => {
    const { id, keyId } = await createStored();
    await app.call(`/api/v1/byok/keys/openai/${keyId}`, {
      method: 'PATCH',
      session,
      json: { enabled: false },
    });
    for (const sent of [
      await app.call(`${RESPONSES}/${id}`, { session }),
      await send({ ...hello, previous_response_id: id }),
    ])
      expect([sent.status, await sent.json()]).toMatchObject([
        424,
        { error: { code: 'no_usable_key', skipped: [{ key_id: keyId, reason: 'disabled' }] } },
      ]);
    expect(openai.requests).toHaveLength(0);
  });

  it('of another provider than that of the model cannot be continued', async () => {
    const { id } = await createStored();
    await addKey(app, session, { provider: 'groq', key: `gsk_${'a'.repeat(32)}` });
    const sent = await send({ model: 'groq/llama-3.3-70b-versatile', input: 'x', previous_response_id: id });
    expect([sent.status, await sent.json()]).toMatchObject([
      400,
      { error: { param: 'previous_response_id', message: expect.stringContaining('openai') as unknown } },
    ]);
    expect(groq.requests).toHaveLength(0);
  });

  it.each(['resp_unknown', '..%2F..%2Fkeys', 'a%20b', 'x'.repeat(300), '%00'])(
    'with the id %s is a 404 without a call',
    async (id) => {
      await createStored();
      const sent = await app.call(`${RESPONSES}/${id}`, { session });
      expect([sent.status, await sent.json()]).toMatchObject([404, { error: { code: 'not_found' } }]);
      expect(openai.requests).toHaveLength(0);
    },
  );

  it('of a model that a token may not use is a 404 without a call', async () => {
    const { id } = await createStored();
    const { token } = await createToken(app, session, { models: ['openai/another-model'] });
    for (const [method, path] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/cancel'],
      ['GET', '/input_items'],
    ] as const) {
      const sent = await app.call(`${RESPONSES}/${id}${path}`, { method, headers: bearer(token) });
      expect(sent.status).toBe(404);
    }
    expect(openai.requests).toHaveLength(0);
  });

  it('is not recorded when the request refuses to store it', async () => {
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    openai.reply(response({ id: 'resp_refused' }));
    expect((await send({ ...hello, store: false })).status).toBe(200);
    expect((await app.call(`${RESPONSES}/resp_refused`, { session })).status).toBe(404);
  });

  it('is recorded with its first event, so that a response in progress can be cancelled', async () => {
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    const end = Promise.withResolvers<undefined>();
    openai.reply((writer) => {
      const [first = '', ...rest] = responseFrames(writer.request, { id: 'resp_open' });
      return answer.steps([first, { until: end.promise }, ...rest])(writer);
    });
    const sent = await send({ ...hello, stream: true });
    await sent.body?.getReader().read();
    openai.reply(response({ id: 'resp_open', status: 'cancelled' }));
    const cancelled = await app.call(`${RESPONSES}/resp_open/cancel`, { method: 'POST', session });
    expect([cancelled.status, await cancelled.json()]).toMatchObject([200, { status: 'cancelled' }]);
    end.resolve(undefined);
  });

  it('needs the tier that includes keys', async () => {
    const free = await app.signIn(await createUser({ tier: 'free' }));
    const sent = await app.call(`${RESPONSES}/resp_1`, { session: free });
    expect([sent.status, await sent.json()]).toMatchObject([403, { error: { code: 'tier_required' } }]);
  });
});

describe('the rows of stored responses', () => {
  it('are deleted after 31 days, and only those', async () => {
    const { id } = await createStored();
    const log = createLog('silent');
    const database = createDatabase({ url: app.ownerDatabaseUrl, max: 1, applicationName: 'test', log });
    const age = (text: string, days: number) =>
      database.run(
        `UPDATE stored_responses SET created_at = now() - make_interval(days => $2) WHERE id = $1`,
        [text, days],
      );
    try {
      expect(await age(id, 32)).toBe(1);
      // The first response in a process prunes.
      const third = await startApp({ env: { UPSTREAM_OPENAI_URL: openai.url }, shared: app });
      try {
        openai.answerAll(response({ id: 'resp_kept' }));
        expect((await send(hello, third)).status).toBe(200);
        await until(
          () => database.run('SELECT FROM stored_responses WHERE id = $1', [id]),
          (count) => count === 0,
        );
        expect(await database.run('SELECT FROM stored_responses WHERE id = $1', ['resp_kept'])).toBe(1);
      } finally {
        await third.stop();
      }
    } finally {
      await database.close();
    }
  });

  it('are hidden from other owners, and cannot all be deleted at once by the role of the app', async () => {
    await createStored();
    const log = createLog('silent');
    const database = createDatabase({ url: app.databaseUrl, max: 1, applicationName: 'test', log });
    try {
      expect(await database.run('SELECT FROM stored_responses')).toBe(0);
      expect(await database.withOwner('user:another', (sql) => sql.run('DELETE FROM stored_responses'))).toBe(
        0,
      );
      for (const days of [0, -1, null])
        await expect(database.run('SELECT prune_stored_responses($1)', [days])).rejects.toThrow(
          '1 day or more',
        );
    } finally {
      await database.close();
    }
  });
});
