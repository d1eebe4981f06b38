import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { answer } from '../support/upstream.ts';

const ANTHROPIC = { 'anthropic-version': '2023-06-01' };

let gateway: Gateway;
let app: TestApp;
let session: string;

beforeAll(async () => {
  gateway = await startGateway(({ openai }) => ({
    UPSTREAM_ANTHROPIC_URL: openai.url,
    UPSTREAM_TOGETHER_URL: openai.url,
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: 'sk-or-the-system-default-key',
    DEFAULT_LLM_MODELS: 'vendor/of-the-system',
  }));
  ({ app } = gateway);
  session = await app.signIn(await createUser({ tier: 'starter' }));
  gateway.openai.answerAll((writer) => {
    const isAnthropic = writer.request.rawHeaders.flat().includes('anthropic-version');
    const data = isAnthropic
      ? [
          {
            type: 'model',
            id: 'claude-opus-5-5',
            display_name: 'Claude Opus 5.5',
            created_at: '2026-09-01T00:00:00Z',
          },
        ]
      : [
          { id: 'meta/Llama-4', object: 'model', created: 1_700_000_000, display_name: 'Bad \u202E name' },
          { id: 'meta/Llama-4', object: 'model', created: 1_700_000_000 },
          { id: 'plain', object: 'model', created: 1_700_000_000, created_at: 'yesterday', owned_by: 'x' },
        ];
    return answer.reply({ body: { object: 'list', data } })(writer);
  });
  await addKey(app, session, { provider: 'anthropic', key: `sk-ant-api03-${openAiKey().slice(3)}` });
  await addKey(app, session, { provider: 'together', key: `tgp_v1_${openAiKey().slice(3)}` });
  const endpoint = gateway.system.url;
  gateway.system.answerAll(answer.models(['Qwen/Qwen3', 'Qwen/Qwen3-Embedding']));
  await addKey(app, session, { provider: 'custom', key: 'some-key', endpoint });
});
afterAll(() => gateway.stop());
afterEach(() => {
  expect(gateway.openai.requests.every(({ path }) => path === '/v1/models')).toBe(true);
});

const get = (path: string, headers: Record<string, string> = {}) => app.call(path, { session, headers });
const slug = () => `custom:127.0.0.1-${gateway.system.port}`;
const listedIds = () => [
  'anthropic/claude-opus-5-5',
  'together/meta/Llama-4',
  'together/plain',
  `${slug()}/Qwen/Qwen3`,
  `${slug()}/Qwen/Qwen3-Embedding`,
  'openrouter/vendor/of-the-system',
];

describe('GET /v1/models', () => {
  it('has OpenAI’s shape, with each id once', async () => {
    const list = (await (await get('/v1/models')).json()) as { object: string; data: { id: string }[] };
    expect(list.object).toBe('list');
    expect(list.data.map(({ id }) => id)).toEqual(listedIds());
    expect(list.data[0]).toEqual({
      id: 'anthropic/claude-opus-5-5',
      object: 'model',
      created: Date.parse('2026-09-01T00:00:00Z') / 1_000,
      owned_by: 'anthropic',
      x_ops_scope: 'personal',
    });
  });

  it('has Anthropic’s shape where anthropic-version is sent', async () => {
    const page = (await (await get('/v1/models', ANTHROPIC)).json()) as { data: object[] };
    expect(page).toMatchObject({ has_more: false, first_id: listedIds()[0], last_id: listedIds().at(-1) });
    expect(page.data.slice(0, 3)).toEqual([
      {
        type: 'model',
        id: 'anthropic/claude-opus-5-5',
        display_name: 'Claude Opus 5.5',
        created_at: '2026-09-01T00:00:00.000Z',
        x_ops_scope: 'personal',
      },
      expect.objectContaining({ id: 'together/meta/Llama-4', display_name: 'meta/Llama-4' }),
      expect.objectContaining({ id: 'together/plain', created_at: '2023-11-14T22:13:20.000Z' }),
    ]);
  });

  it.each(['after_id', 'before_id'])('is read in pages by %s', async (parameter) => {
    const ids: string[] = [];
    for (let query = 'limit=2', hasMore = true; hasMore;) {
      const page = (await (await get(`/v1/models?${query}`, ANTHROPIC)).json()) as {
        data: { id: string }[];
        has_more: boolean;
        first_id: string;
        last_id: string;
      };
      const pageIds = page.data.map(({ id }) => id);
      if (parameter === 'after_id') ids.push(...pageIds);
      else if (query !== 'limit=2') ids.unshift(...pageIds);
      hasMore = page.has_more;
      // Backwards, from the last model.
      if (query === 'limit=2' && parameter === 'before_id') {
        const last = listedIds().at(-1) ?? '';
        ids.push(last);
        query = `limit=2&before_id=${encodeURIComponent(last)}`;
      } else {
        const id = parameter === 'after_id' ? page.last_id : page.first_id;
        query = `limit=2&${parameter}=${encodeURIComponent(id)}`;
      }
    }
    expect(ids).toEqual(listedIds());
  });

  it.each(['limit=0', 'after_id=none', 'before_id=none', 'limit=2&limit=3'])(
    'refuses %s in Anthropic’s shape, and ignores it in OpenAI’s',
    async (query) => {
      const refused = await get(`/v1/models?${query}`, ANTHROPIC);
      expect([refused.status, await refused.json()]).toMatchObject([
        400,
        { type: 'error', error: { type: 'invalid_request_error' } },
      ]);
      expect((await get(`/v1/models?${query}`)).status).toBe(200);
    },
  );

  it.each([
    ['Anthropic’s', ANTHROPIC, { type: 'error', error: { type: 'authentication_error' } }],
    ['OpenAI’s', {}, { error: { code: 'unauthenticated', type: 'authentication_error' } }],
  ])('without a sign-in is an error in %s shape', async (_name, headers, error) => {
    for (const path of ['/v1/models', '/v1/models/a/b']) {
      const response = await app.call(path, { headers });
      expect([response.status, await response.json()]).toMatchObject([401, error]);
      expect(response.headers.get('x-ops-error-source')).toBe('ops-center');
    }
  });
});

describe('GET /v1/models/{id}', () => {
  it('finds every listed id, with slashes as they are or percent-encoded', async () => {
    for (const id of listedIds()) {
      for (const path of [id, encodeURIComponent(id), id.replace('/', '%2F')]) {
        const openai = await get(`/v1/models/${path}`);
        expect([openai.status, await openai.json()]).toMatchObject([200, { id, object: 'model' }]);
        const anthropic = await get(`/v1/models/${path}`, ANTHROPIC);
        expect([anthropic.status, await anthropic.json()]).toMatchObject([200, { id, type: 'model' }]);
      }
    }
  });

  it('finds a model by its provider’s name where one alone has it', async () => {
    expect(await (await get('/v1/models/claude-opus-5-5')).json()).toMatchObject({
      id: 'anthropic/claude-opus-5-5',
    });
  });

  it('that no list has is a 404 with similar ids, in each protocol’s shape', async () => {
    const text = 'Similar models: anthropic/claude-opus-5-5';
    const openai = await get('/v1/models/claude-opus-5');
    expect([openai.status, await openai.json()]).toMatchObject([
      404,
      {
        error: {
          code: 'model_not_found',
          message: expect.stringContaining(text),
          candidates: ['anthropic/claude-opus-5-5'],
        },
      },
    ]);
    const anthropic = await get('/v1/models/claude-opus-5', ANTHROPIC);
    expect([anthropic.status, await anthropic.json()]).toMatchObject([
      404,
      { type: 'error', error: { type: 'not_found_error', message: expect.stringContaining(text) } },
    ]);
  });

  it('names no model of another user', async () => {
    const other = await app.signIn(await createUser({ tier: 'starter' }));
    const response = await app.call('/v1/models/claude-opus-5-5', { session: other });
    expect([response.status, await response.json()]).toMatchObject([404, { error: { candidates: [] } }]);
  });

  it('with invalid percent-encoding is a 400 in each protocol’s shape', async () => {
    const openai = await get('/v1/models/%E0%A4%A');
    expect([openai.status, await openai.json()]).toMatchObject([
      400,
      { error: { code: 'validation_failed' } },
    ]);
    const anthropic = await get('/v1/models/%E0%A4%A', ANTHROPIC);
    expect([anthropic.status, await anthropic.json()]).toMatchObject([400, { type: 'error' }]);
  });
});

describe('a chat with a model that no list has', () => {
  it('is a 404 with similar models of the caller', async () => {
    const json = { model: 'custom:unknown/Qwen3-Embeding', messages: [] };
    const response = await app.call('/v1/chat/completions', { method: 'POST', session, json });
    expect([response.status, await response.json()]).toMatchObject([
      404,
      { error: { code: 'model_not_found', candidates: [`${slug()}/Qwen/Qwen3-Embedding`] } },
    ]);
  });
});
