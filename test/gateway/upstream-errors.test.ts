import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { answer, fault, type Answer, type Upstream } from '../support/upstream.ts';

const SYSTEM_KEY = 'sk-or-v1-the/default+key=of-the-system';
const hello = (model: string | undefined, more: object = {}) => ({
  ...(model === undefined ? {} : { model }),
  messages: [{ role: 'user', content: 'Hello' }],
  ...more,
});

let gateway: Gateway;
let app: TestApp;
let openai: Upstream;
let system: Upstream;

beforeAll(async () => {
  gateway = await startGateway(() => ({
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: SYSTEM_KEY,
    DEFAULT_LLM_MODEL: 'vendor/default-model',
  }));
  ({ app, openai, system } = gateway);
});
afterAll(() => gateway.stop());
afterEach(() => {
  gateway.reset();
});

/** A user with keys of OpenAI. */
async function signIn(keys: readonly string[] = []): Promise<string> {
  const session = await app.signIn(await createUser({ tier: 'starter' }));
  for (const key of keys) await addKey(app, session, { provider: 'openai', key });
  return session;
}

const chat = (session: string, json: object, headers: Record<string, string> = {}) =>
  app.call('/v1/chat/completions', { method: 'POST', session, json, headers });

const toUnicode = (text: string) =>
  Array.from(text, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`).join('');

/** The text after all escapes that a reader could undo. */
function decodeAll(text: string): string {
  const decoded = text
    .replace(/\\u([0-9a-f]{4})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    .replace(/\\(.)/gs, '$1')
    .replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return decoded === text ? text : decodeAll(decoded);
}

describe('an error that repeats the system’s key', () => {
  const forms = [
    SYSTEM_KEY,
    SYSTEM_KEY.replaceAll('+', '\\u002B').replaceAll('/', '\\/'),
    toUnicode(SYSTEM_KEY),
    encodeURIComponent(SYSTEM_KEY),
    toUnicode(encodeURIComponent(SYSTEM_KEY)),
    JSON.stringify(`{"quoted":"${toUnicode(SYSTEM_KEY)}"}`).slice(1, -1),
  ];
  const bodies = (form: string) => [
    `{"error":{"message":"bad ${form}","type":"x"}}`,
    `{"error":{"message":"x","${form}":[{"deep":"${form}"}]}}`,
    `{"\\u0065rror":"${form}"}`,
    `{"message":"${form}"}`,
    `{"detail":[{"loc":["body"],"msg":"${form}"}]}`,
    `[{"error":{"message":"${form}"}}]`,
    `{"other":"${form}"}`,
    `{"error": "cut ${form}`,
    `<html>${form}</html>`,
    `the key ${form}`,
  ];
  const all = forms.flatMap(bodies);

  it('does not show it in any form, with any status and content type', async () => {
    let session = '';
    const types = ['application/json', 'text/html', 'text/plain', 'application/octet-stream'];
    for (const [index, body] of all.entries()) {
      // The system pays for 30 requests a minute.
      if (index % 25 === 0) session = await signIn();
      const headers = { 'content-type': types[index % types.length] ?? '', 'x-ratelimit-echo': SYSTEM_KEY };
      system.reply(answer.reply({ status: [400, 401, 500][index % 3] ?? 400, body, headers }));
      const response = await chat(session, hello(undefined));
      const seen = `${await response.text()} ${[...response.headers.values()].join(' ')}`;
      expect(response.status).toBe([400, 401, 500][index % 3]);
      expect(decodeAll(seen)).not.toContain(SYSTEM_KEY);
      expect(seen).not.toContain(Buffer.from(SYSTEM_KEY).toString('base64').slice(0, -2));
    }
  });

  /** Errors in the shape of a response. */
  const responses = (form: string) => [
    `{"choices":[],"code":401,"message":"Incorrect API key: ${form}"}`,
    `{"choices":[],"detail":"bad ${form}","status":401}`,
    `{"choices":[],"errors":[{"message":"bad ${form}"}]}`,
    `{"choices":[],"error_message":"bad ${form}"}`,
    `{"choices":[{"delta":{"content":""},"finish_reason":"error","native_error":"bad ${form}"}]}`,
  ];
  const success = (form: string) => `{"choices":[{"index":0,"delta":{"content":"${form}"}}]}`;

  it('does not show it in an event of a stream', async () => {
    const session = await signIn();
    const form = toUnicode(SYSTEM_KEY);
    const frames = [
      ...[...bodies(form), ...responses(form)].map((body) => `data: ${body}\n\n`),
      ...['error', 'Error', ' error'].map((type) => `event: ${type}\ndata: ${success(form)}\n\n`),
    ];
    for (const frame of frames) {
      system.reply(answer.steps([frame]));
      const text = await (await chat(session, hello(undefined, { stream: true }))).text();
      expect([frame, text]).toEqual([frame, expect.stringContaining('***')]);
      expect(decodeAll(text)).not.toContain(SYSTEM_KEY);
    }
  });

  it('does not show it with status 200', async () => {
    const session = await signIn();
    const form = toUnicode(SYSTEM_KEY);
    for (const body of [...bodies(form), ...responses(form)]) {
      system.reply(answer.reply({ status: 200, body }));
      expect(decodeAll(await (await chat(session, hello(undefined))).text())).not.toContain(SYSTEM_KEY);
    }
  });
});

describe('an error of an upstream', () => {
  const typed = (status: number, contentType: string | null, body: string): Answer =>
    answer.reply({ status, body, contentType });

  it.each<[string, number, Answer, string]>([
    ['HTML', 413, answer.html(413), 'The provider answered 413 with a web page.'],
    ['HTML', 500, answer.html(500), 'The provider answered 500 with a web page.'],
    ['HTML without a type', 503, typed(503, null, ' <html>'), 'The provider answered 503 with a web page.'],
    [
      'text',
      404,
      typed(404, 'text/plain', 'no route'),
      'The provider answered 404 with text that is not JSON.',
    ],
    [
      'damaged JSON',
      502,
      typed(502, 'application/json', '{"er'),
      'The provider answered 502 with text that is not JSON.',
    ],
    ['no body', 503, typed(503, 'text/plain', ''), 'The provider answered 503 with no body.'],
    [
      'an endless body',
      500,
      fault.endlessJson(500),
      'The provider answered 500 with a body over the size limit.',
    ],
    [
      'a compressed body',
      429,
      answer.reply({ status: 429, body: 'x', headers: { 'content-encoding': 'gzip' } }),
      'The provider answered 429 with a compressed body.',
    ],
  ])('keeps its status when its body is %s (%s)', async (_name, status, reply, message) => {
    const session = await signIn([openAiKey()]);
    openai.reply(reply);
    const response = await chat(session, hello('gpt-4o'));
    expect([response.status, await response.json()]).toEqual([
      status,
      { error: { message, type: 'upstream_error', param: null, code: null } },
    ]);
    expect(response.headers.get('x-ops-error-source')).toBe('upstream');
    expect(response.headers.get('content-type')).toBe('application/json');
  });

  it.each([
    'text/html',
    'text/plain',
    'application/octet-stream',
    'application/vnd.api+json',
    'text/event-stream',
    null,
  ])('is read as JSON when it is JSON with the content type %s', async (type) => {
    const session = await signIn([openAiKey()]);
    openai.reply(typed(404, type, '\uFEFF{"error":{"message":"own","code":1}}'));
    const response = await chat(session, hello('gpt-4o'));
    expect([response.status, await response.json()]).toEqual([404, { error: { message: 'own', code: 1 } }]);
    if (type === 'text/event-stream') return;
    const body = '{"choices":[{"index":0,"message":{"content":"x"}}]}';
    openai.reply(typed(200, type, body));
    expect(await (await chat(session, hello('gpt-4o'))).text()).toBe(body);
  });

  it('with status 200 is a 502 when it is too long to be searched for secrets', async () => {
    const session = await signIn([openAiKey()]);
    openai.reply(answer.reply({ status: 200, body: { other: 'x'.repeat(256 * 1024) } }));
    expect((await chat(session, hello('gpt-4o'))).status).toBe(502);
  });

  it('passes the headers by which clients time a retry, and the provider’s request id', async () => {
    const session = await signIn([openAiKey()]);
    const headers = { 'retry-after-ms': '1500', 'x-should-retry': 'false', 'x-request-id': 'req_abc-1' };
    openai.reply(answer.error(429, { headers }));
    const { headers: sent } = await chat(session, hello('gpt-4o'));
    expect(Object.fromEntries(sent)).toMatchObject({
      'retry-after-ms': '1500',
      'x-should-retry': 'false',
      'x-ops-upstream-request-id': 'req_abc-1',
    });
    expect(sent.get('x-request-id')).not.toBe('req_abc-1');
    expect(app.events('answer_passed').at(-1)).toMatchObject({ upstream_request_id: 'req_abc-1' });
    openai.reply(answer.reply({ status: 200, body: '<html>', headers: { 'x-request-id': 'req_abc-2' } }));
    const malformed = await chat(session, hello('gpt-4o'));
    expect([malformed.status, malformed.headers.get('x-ops-upstream-request-id')]).toEqual([
      502,
      'req_abc-2',
    ]);
    expect(app.events('answer_passed').at(-1)).toMatchObject({
      status: null,
      upstream_request_id: 'req_abc-2',
    });
  });
});

describe('a 401', () => {
  const refusal = (code: string | null, message: string): Answer => answer.error(401, { code, message });
  const ORGANIZATION = { 'openai-organization': 'org-other' };
  const SCOPES =
    'You have insufficient permissions for this operation. Missing scopes: model.request. Check that you have the correct role.';

  it.each<[string, Answer, Record<string, string>]>([
    [
      'an organization of the client',
      refusal('mismatched_organization', 'Header should match.'),
      ORGANIZATION,
    ],
    ['a project of the client', refusal(null, 'No such project: proj_1'), { 'openai-project': 'proj_1' }],
    ['no explanation, with an organization', answer.html(401), ORGANIZATION],
    ['a missing scope', refusal(null, SCOPES), {}],
    ['a model', refusal(null, 'key not allowed to access model. This key can only access models=[a]'), {}],
    ['an empty account', refusal('insufficient_quota', 'Buy credit.'), {}],
  ])('about %s passes and changes no key', async (_name, reply, headers) => {
    const session = await signIn([openAiKey(), openAiKey()]);
    openai.answerAll(reply);
    expect((await chat(session, hello('gpt-4o'), headers)).status).toBe(401);
    expect(openai.requests).toHaveLength(1);
    openai.reset();
    for (const attempt of [1, 2]) {
      expect((await chat(session, hello('gpt-4o'))).status).toBe(200);
      expect(new Set(openai.requests.map(({ key }) => key)).size).toBe(attempt);
    }
    const keys = (await (await app.call('/api/v1/byok/keys', { session })).json()) as {
      test_status: string;
    }[];
    expect(keys.map(({ test_status }) => test_status)).toEqual(['untested', 'untested']);
  });

  it('about a key is logged with the provider’s request id, also when another key serves the request', async () => {
    const session = await signIn([openAiKey(), openAiKey()]);
    openai.reply(
      answer.error(401, { headers: { 'x-request-id': 'req_refused' } }),
      answer.completion({ headers: { 'x-request-id': 'req_served' } }),
    );
    const response = await chat(session, hello('gpt-4o'));
    expect(response.headers.get('x-ops-upstream-request-id')).toBe('req_served');
    const [refused, served] = [app.events('key_refused').at(-1), app.events('answer_passed').at(-1)];
    expect(refused).toMatchObject({ provider: 'openai', attempts: 1, upstream_request_id: 'req_refused' });
    expect(served).toMatchObject({ attempts: 2, upstream_request_id: 'req_served' });
    expect(refused?.['key_id']).not.toBe(served?.['key_id']);
  });

  it.each<[string, Answer, Record<string, string>]>([
    ['invalid_api_key', answer.error(401), ORGANIZATION],
    ['a deactivated account', refusal('account_deactivated', 'x'), ORGANIZATION],
    ['a revoked key', refusal(null, 'This API key has been revoked.'), ORGANIZATION],
    ['an invalid key by its text', refusal(null, 'Invalid API key'), ORGANIZATION],
    ['no explanation', answer.reply({ status: 401, body: '' }), {}],
    ['a web page', answer.html(401), {}],
  ])('with %s is about the key: the next key is tried', async (_name, reply, headers) => {
    const [bad, good] = [openAiKey(), openAiKey()];
    const session = await signIn([bad, good]);
    openai.answerKey(bad, reply);
    for (let count = 0; count < 2; count += 1)
      expect((await chat(session, hello('gpt-4o'), headers)).status).toBe(200);
    const keys = (await (await app.call('/api/v1/byok/keys', { session })).json()) as {
      test_status: string;
    }[];
    expect(keys.map(({ test_status }) => test_status).sort()).toEqual(['invalid', 'untested']);
  });
});

describe('a private endpoint', () => {
  const custom = hello('custom/m');
  async function signInWithEndpoint(): Promise<string> {
    const session = await signIn();
    await addKey(app, session, { provider: 'custom', key: 'some-key-of-the-endpoint', endpoint: openai.url });
    return session;
  }
  const message = (text: string, more: object = {}) => ({
    error: { message: text, type: null, param: null, code: null, ...more },
  });
  const SHAPES: [unknown, object][] = [
    [
      { error: { message: 'text', type: 't', code: 5, data: 'inside' } },
      message('text', { type: 't', code: 5 }),
    ],
    [
      { object: 'error', message: 'text', type: 'BadRequestError', code: 400 },
      message('text', { type: 'BadRequestError', code: 400 }),
    ],
    [{ message: 'text', data: 'inside' }, message('text')],
    [{ error: 'text' }, message('text')],
    [{ detail: 'text' }, message('text')],
    [
      { detail: [{ loc: ['body', 'n'], msg: 'text', input: 'inside' }, { msg: 'more' }] },
      message('body.n: text; more'),
    ],
    [
      { object: 'error', detail: [{ loc: [{ toString: 1 }, 'n', 0, null, ['inside']], msg: 'text' }] },
      message('n.0: text'),
    ],
    [
      { detail: [{ loc: Array.from({ length: 100 }, () => 'a'), msg: 'text' }] },
      message(`${Array.from({ length: 16 }, () => 'a').join('.')}: text`),
    ],
    [
      { choices: [{ index: 0, delta: {}, finish_reason: 'error', data: 'inside' }] },
      message('The provider ended the answer with the finish reason "error".'),
    ],
    [[{ error: { message: 'text', code: 400, status: 'inside' } }], message('text', { code: 400 })],
    [{ message: 'bad some-key-of-the-endpoint' }, message('bad ***')],
    [{ message: 'x'.repeat(10_000) }, message(`${'x'.repeat(4_095)}…`)],
  ];

  it('may send errors in the shapes of real servers, of which the protocol’s members pass', async () => {
    const session = await signInWithEndpoint();
    for (const [body, shown] of SHAPES) {
      openai.reply(answer.reply({ status: 400, body }));
      const response = await chat(session, custom);
      expect([response.status, await response.json()]).toEqual([400, shown]);
      openai.reply(answer.steps([`data: ${JSON.stringify(body)}\n\n`]));
      const events = await (await chat(session, { ...custom, stream: true })).text();
      expect(events).toBe(`data: ${JSON.stringify(shown)}\n\n`);
    }
  });

  it.each([
    { choices: [], id: '', model: '', object: '', created: 0, prompt_filter_results: [] },
    { choices: [], id: 'x', usage: { total_tokens: 1 } },
    { choices: [], object: 'chat.completion.chunk' },
    { choices: [{ index: 0, finish_reason: 'stop' }] },
    { choices: [{ index: 0, delta: null, finish_reason: 'stop' }], object: '' },
    { choices: [{ index: 0, delta: {} }], error: null },
  ])('may send the chunk %j', async (chunk) => {
    const session = await signInWithEndpoint();
    const frames = `data: ${JSON.stringify(chunk)}\n\ndata: [DONE]\n\n`;
    openai.reply(answer.steps([frames]));
    expect(await (await chat(session, { ...custom, stream: true })).text()).toBe(frames);
  });

  it('keeps the status of other errors and shows nothing else of them', async () => {
    const session = await signInWithEndpoint();
    const headers = { 'x-request-id': 'inside', 'request-id': 'inside', 'retry-after': '77' };
    const seen = new Set<string>();
    for (const body of ['<html>inside</html>', 'inside', '', { data: 'inside' }, '{"error":']) {
      openai.reply(answer.reply({ status: 413, body, headers }));
      const response = await chat(session, custom);
      expect(response.status).toBe(413);
      expect([...response.headers.values()]).not.toContain('inside');
      expect(response.headers.get('retry-after')).toBeNull();
      seen.add(await response.text());
    }
    expect([...seen]).toEqual([
      JSON.stringify(
        message('The endpoint answered 413 without an error of the chat completions protocol.', {
          type: 'upstream_error',
        }),
      ),
    ]);
  });
});
