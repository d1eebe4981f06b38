import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { request, type IncomingMessage } from 'node:http';
import OpenAI from 'openai';
import pg from 'pg';
import { gzipSync } from 'node:zlib';
import type { Response } from 'undici';
import { AppError, type ErrorCode } from '../../src/lib/errors.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { fernetKey, startApp, type CallOptions, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser, type TestUser } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { editVaultRecord, readVaultRecord } from '../support/vault-record.ts';

const CHAT = '/v1/chat/completions';
const ADD = '/api/v1/byok/keys/add';
const hello = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };
const POST_JSON = { method: 'POST', headers: { 'content-type': 'application/json' } };

let app: TestApp;
let user: TestUser;
let session: string;

beforeAll(async () => {
  app = await startApp();
  user = await createUser({ tier: 'starter' });
  session = await app.signIn(user);
});
afterAll(() => app.stop());

type Members = Record<string, unknown>;

/** Replaces a user's stored tokens by tokens of another encryption key. */
async function encryptWithOtherKey(owner: TestUser): Promise<void> {
  const keyring = createKeyring([fernetKey()]);
  const { attributes } = await readVaultRecord(owner);
  const values = (attributes['byok_openai'] ?? []).map((value) =>
    JSON.stringify({ ...(JSON.parse(value) as object), token: keyring.encrypt('{}') }),
  );
  await editVaultRecord(owner, { byok_openai: values });
}

/** The body of an error in the REST API's format. Checks the members that every error has. */
async function readProblem(response: Response): Promise<Members> {
  expect(response.headers.get('content-type')).toBe('application/problem+json');
  expect(response.headers.has('x-ops-error-source')).toBe(false);
  const body = (await response.json()) as Members;
  expect(body).toMatchObject({
    type: 'about:blank',
    title: expect.any(String),
    status: response.status,
    detail: expect.stringMatching(/\.$/),
    code: expect.any(String),
    request_id: response.headers.get('x-request-id'),
  });
  return body;
}

/** The same for OpenAI's format. */
async function readOpenAiError(response: Response): Promise<Members> {
  expect(response.headers.get('content-type')).toBe('application/json');
  expect(response.headers.get('x-ops-error-source')).toBe('ops-center');
  const { error, ...rest } = (await response.json()) as { error: Members };
  expect(rest).toEqual({});
  expect(error).toMatchObject({
    message: expect.stringMatching(/\.$/),
    type: expect.any(String),
    code: expect.any(String),
    request_id: response.headers.get('x-request-id'),
  });
  expect(error).toHaveProperty('param');
  return error;
}

/** A request with a custom Host header, which `fetch` does not allow. */
async function callWithHost(host: string, path: string): Promise<{ status: number; body: Members }> {
  const sent = request({ host: '127.0.0.1', port: app.config.port, path, headers: { host } }).end();
  const [answer] = (await once(sent, 'response')) as [IncomingMessage];
  const text = (await answer.setEncoding('utf8').toArray()).join('');
  return { status: answer.statusCode ?? 0, body: JSON.parse(text) as Members };
}

describe('the list of error codes', () => {
  it('is the same in docs/api.md and in the code, with the same statuses', async () => {
    const described = parseDocumentedCodes(await readFile('docs/api.md', 'utf8'));
    const source = await readFile('src/lib/errors.ts', 'utf8');
    const coded = [...source.matchAll(/^ {2}([a-z_]+): (\d{3}),$/gm)].map(([, code]) => String(code));
    expect([...described.keys()].sort()).toEqual(coded.sort());
    for (const [code, statuses] of described)
      expect(statuses).toContain(new AppError(code as ErrorCode, '').status);
  });
});

/** The codes in the table under "Errors", each with the statuses of its row. */
function parseDocumentedCodes(text: string): Map<string, number[]> {
  const section = /\n## Errors\n([\s\S]*?)\n## /.exec(text)?.[1] ?? '';
  const rows = section.split('\n').filter((line) => /^\| *\d/.test(line));
  return new Map(
    rows.flatMap((row) => {
      const [, statuses = '', codes = ''] = row.split('|');
      // Members and headers are in parentheses.
      const names = codes.replace(/\([^)]*\)/g, '').matchAll(/`([a-z_]+)`/g);
      const numbers = (statuses.match(/\d{3}/g) ?? []).map(Number);
      return [...names].map(([, name = '']): [string, number[]] => [name, numbers]);
    }),
  );
}

describe('an error of the REST API is a problem with code, status and request id:', () => {
  it.each<[string, string, CallOptions, number, Members]>([
    ['an unknown path', '/api/v1/nothing', {}, 404, { code: 'not_found' }],
    ['an unknown path outside the API', '/nothing', {}, 404, { code: 'not_found' }],
    ['no credential', '/api/v1/me', {}, 401, { code: 'unauthenticated' }],
    ['an unknown user', '/api/v1/me', { session: 's%3Aabc.def' }, 401, { code: 'unauthenticated' }],
    [
      'broken percent-encoding',
      '/api/v1/byok/keys/%E0%A4%A',
      { method: 'DELETE' },
      400,
      { code: 'validation_failed' },
    ],
  ])('%s', async (_name, path, options, status, members) => {
    const response = await app.call(path, options);
    expect(response.status).toBe(status);
    expect(await readProblem(response)).toMatchObject(members);
  });

  it('an invalid body names every violated rule by its field', async () => {
    const json = { provider: 'openai', key: openAiKey(), label: 'x'.repeat(121), colour: 'red' };
    const response = await app.call(ADD, { method: 'POST', session, json });
    const { code, errors } = await readProblem(response);
    expect([response.status, code]).toEqual([400, 'validation_failed']);
    expect(errors).toEqual(
      expect.arrayContaining([{ path: 'label', message: 'must have 120 characters or fewer' }]),
    );
    expect(JSON.stringify(errors)).toContain('colour');
  });

  it('a tier that is too low names both tiers', async () => {
    const free = await app.signIn(await createUser({ tier: 'trial' }));
    const json = { provider: 'openai', key: openAiKey() };
    const response = await app.call(ADD, { method: 'POST', session: free, json });
    expect(response.status).toBe(403);
    expect(await readProblem(response)).toMatchObject({
      code: 'tier_required',
      required_tier: 'starter',
      current_tier: 'trial',
    });
  });

  it('an unsupported method names the supported ones', async () => {
    const response = await app.call('/api/v1/me', { method: 'DELETE', session });
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET']);
    expect(await readProblem(response)).toMatchObject({ code: 'method_not_allowed' });
  });

  it('a cross-site write, cookies of two sessions, and a wrong host', async () => {
    const json = { provider: 'openai', key: openAiKey() };
    const headers = { origin: 'http://evil.example' };
    const forged = await app.call(ADD, { method: 'POST', session, json, headers });
    expect([forged.status, (await readProblem(forged))['code']]).toEqual([403, 'csrf']);
    const other = await app.signIn(await createUser());
    const cookie = `session=${session}; session=${other}`;
    const twice = await app.call('/api/v1/me', { headers: { cookie } });
    expect([twice.status, (await readProblem(twice))['code']]).toEqual([400, 'validation_failed']);
    expect(await callWithHost('evil.example', '/api/v1/me')).toMatchObject({
      status: 421,
      body: { code: 'wrong_host', status: 421 },
    });
  });
});

describe('an error under /v1 has OpenAI’s format:', () => {
  it.each<[string, string, CallOptions, number, Members]>([
    ['an unknown path', '/v1/audio/speech', POST_JSON, 404, { code: 'not_found' }],
    [
      'no credential',
      CHAT,
      { method: 'POST', json: hello },
      401,
      { code: 'unauthenticated', type: 'authentication_error' },
    ],
  ])('%s', async (_name, path, options, status, members) => {
    const response = await app.call(path, options);
    expect(response.status).toBe(status);
    expect(await readOpenAiError(response)).toMatchObject(members);
  });

  it('an unsupported method names the supported ones', async () => {
    const response = await app.call(CHAT, { session });
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'POST']);
    expect(await readOpenAiError(response)).toMatchObject({ code: 'method_not_allowed' });
  });

  it('a cross-site write and a wrong host', async () => {
    const headers = { 'sec-fetch-site': 'cross-site' };
    const forged = await app.call(CHAT, { method: 'POST', session, json: hello, headers });
    expect(forged.status).toBe(403);
    expect(await readOpenAiError(forged)).toMatchObject({ code: 'csrf', type: 'permission_error' });
    expect(await callWithHost('evil.example', '/v1/models')).toMatchObject({
      status: 421,
      body: { error: { code: 'wrong_host' } },
    });
  });

  it('a missing model is named as the parameter', async () => {
    const { messages } = hello;
    const response = await app.call(CHAT, { method: 'POST', session, json: { messages } });
    expect(response.status).toBe(400);
    expect(await readOpenAiError(response)).toMatchObject({ code: 'validation_failed', param: 'model' });
  });

  it('no default provider: 503 and no retry by the SDK', async () => {
    const client = new OpenAI({
      baseURL: `${app.url}/v1`,
      apiKey: 'unused',
      defaultHeaders: { Cookie: `session=${session}`, Authorization: null },
      maxRetries: 2,
    });
    const chat = client.chat.completions.create({ model: 'gpt-4o', messages: [] });
    await expect(chat).rejects.toMatchObject({ status: 503, code: 'no_default_provider' });
    expect(app.events('request').filter(({ status }) => status === 503)).toHaveLength(1);
  });

  it('a key that cannot be decrypted: 424 with the skipped keys, and the key stays stored', async () => {
    const owner = await createUser({ tier: 'starter' });
    const ownerSession = await app.signIn(owner);
    const id = await addKey(app, ownerSession, { provider: 'openai', key: openAiKey() });
    await encryptWithOtherKey(owner);
    const response = await app.call(CHAT, { method: 'POST', session: ownerSession, json: hello });
    expect([response.status, response.headers.get('x-should-retry')]).toEqual([424, 'false']);
    expect(await readOpenAiError(response)).toMatchObject({
      code: 'key_undecryptable',
      skipped: [{ key_id: id, reason: 'undecryptable' }],
    });
    expect(app.events('key_undecryptable')).toMatchObject([
      { user: owner.id, provider: 'openai', key_id: id },
    ]);
    const listed = await app.call('/api/v1/byok/keys', { session: ownerSession });
    expect(await listed.json()).toMatchObject([{ id, label: null }]);
  });
});

describe('a body under /api', () => {
  const add = (options: Partial<CallOptions>) =>
    app.call(ADD, {
      method: 'POST',
      session,
      ...options,
      headers: { ...POST_JSON.headers, ...options.headers },
    });

  it('that is not JSON appears neither in the response nor in the log', async () => {
    const secret = openAiKey();
    const response = await add({ body: `{"provider":"openai","key":"${secret}"` });
    expect([response.status, (await readProblem(response))['code']]).toEqual([400, 'validation_failed']);
    const again = await (await add({ body: secret })).text();
    expect(again + app.logs()).not.toContain(secret.slice(0, 12));
  });

  it('may have at most 1 MB', async () => {
    const sized = (bytes: number) => `{"provider":"${'x'.repeat(bytes - 15)}"}`;
    expect(sized(1_048_576)).toHaveLength(1_048_576);
    expect((await add({ body: sized(1_048_576) })).status).toBe(400);
    const response = await add({ body: sized(1_048_577) });
    expect([response.status, (await readProblem(response))['code']]).toEqual([413, 'body_too_large']);
  });

  it.each<[string, Partial<CallOptions>]>([
    ['in another type', { body: 'provider=openai', headers: { 'content-type': 'text/plain' } }],
    ['in another charset', { body: '{}', headers: { 'content-type': 'application/json; charset=latin1' } }],
    ['that is compressed', { body: gzipSync('{}'), headers: { 'content-encoding': 'gzip' } }],
  ])('%s is a 415', async (_name, options) => {
    const response = await add(options);
    expect([response.status, (await readProblem(response))['code']]).toEqual([415, 'unsupported_media_type']);
  });

  it('may be missing with any content type when none is needed', async () => {
    const headers = { 'content-type': 'text/plain' };
    const none = await app.call('/api/v1/byok/keys/openai', { method: 'DELETE', session, headers });
    expect([none.status, (await readProblem(none))['code']]).toEqual([404, 'key_not_found']);
    const missing = await app.call(ADD, { method: 'POST', session, headers });
    expect([missing.status, (await readProblem(missing))['code']]).toEqual([400, 'validation_failed']);
  });
});

describe('an internal error', () => {
  it('is a 500 without detail in both formats, logged once each with its cause', async () => {
    await using broken = await startApp();
    const owner = new pg.Client({ connectionString: broken.ownerDatabaseUrl });
    await owner.connect();
    await owner.query('ALTER TABLE provider_key_facts RENAME TO hidden_table');
    await owner.end();
    // Created only now, so that nothing of this user is cached.
    const ownerSession = await broken.signIn(await createUser({ tier: 'starter' }));
    const listed = await broken.call('/api/v1/byok/keys', { session: ownerSession });
    const chatted = await broken.call(CHAT, { method: 'POST', session: ownerSession, json: hello });
    const texts = [await listed.clone().text(), await chatted.clone().text()].join();
    expect(texts).not.toMatch(/provider_key_facts|relation|42P01|\.ts/);
    expect([listed.status, (await readProblem(listed))['code']]).toEqual([500, 'internal_error']);
    expect([chatted.status, await readOpenAiError(chatted)]).toMatchObject([
      500,
      { code: 'internal_error', type: 'server_error' },
    ]);
    for (const response of [listed, chatted]) {
      const id = response.headers.get('x-request-id');
      const errors = logLines(broken).filter(
        (line) => line['request_id'] === id && Number(line['level']) >= 50,
      );
      expect(errors).toMatchObject([{ err: { code: '42P01' } }]);
    }
  });
});

const logLines = (from: TestApp) =>
  from
    .logs()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Members);

describe('the request id', () => {
  const requestLogged = (id: string | null) =>
    until(
      () => app.events('request').find((line) => line['request_id'] === id),
      (line) => line !== undefined,
    );

  it('is created by the server; the client’s id is logged beside it', async () => {
    const headers = { 'x-request-id': 'Client-1.2_3' };
    const response = await app.call('/api/v1/me', { session, headers });
    const id = response.headers.get('x-request-id');
    expect(id).toMatch(/^req_[A-Za-z0-9_-]{20}$/);
    expect(await requestLogged(id)).toMatchObject({ client_request_id: 'Client-1.2_3', route: '/api/v1/me' });
  });

  it.each(['', 'x'.repeat(65), 'a b', 'a"b', 'ä'])('is not logged when it is %j', async (name) => {
    const response = await app.call('/livez', { headers: { 'x-request-id': name } });
    const logged = await requestLogged(response.headers.get('x-request-id'));
    expect(logged).not.toHaveProperty('client_request_id');
  });

  it('is in every response, and the log names the route, not the URL', async () => {
    const response = await app.call('/auth/login?return_to=/secret-path');
    expect(response.status).toBe(303);
    expect(await requestLogged(response.headers.get('x-request-id'))).toMatchObject({ route: '/auth/login' });
    // Not registered as a secret of this run, since the URLs that tests call are recorded.
    const key = `sk-${'pasted'.repeat(8)}`;
    const pasted = await app.call(`/api/v1/byok/keys/${key}`, { method: 'DELETE', session });
    expect(pasted.status).toBe(404);
    await requestLogged(pasted.headers.get('x-request-id'));
    await app.call(`/no/such/path/${key}`);
    expect(app.logs()).not.toContain('secret-path');
    expect(app.logs()).not.toContain(key);
  });
});
