import { expect } from '@jest/globals';
import { z } from 'zod';
import type { TestApp } from '../support/app.ts';
import { evidence } from '../support/evidence.ts';
import { openAiKey } from '../support/key.ts';
import type { TestUser } from '../support/stack.ts';
import { startUpstream, type Upstream } from '../support/upstream.ts';
import { until } from '../support/until.ts';
import { install, type Installation, type Layout } from './installation.ts';

/** A user who has stored a key. */
export interface UserWithKey {
  user: TestUser;
  session: string;
  provider: string;
  key: string;
  keyId: string;
  /** The stored value in the vault. */
  value: string;
}

/** Optional members of `POST /keys/add`. */
export interface KeyOptions {
  provider?: string;
  key?: string;
  label?: string;
  endpoint?: string;
  expires_at?: string;
  key_id?: string;
}

/** An installation with one double for every upstream and a system default that serves any model. */
export interface Scenario extends Installation {
  upstream: Upstream;
  createUserWithKey(options?: KeyOptions): Promise<UserWithKey>;
  /** Adds or replaces a key through the API. Returns its id and the stored value. */
  storeKey(
    owner: Pick<UserWithKey, 'user' | 'session'>,
    options: KeyOptions & { key: string },
  ): Promise<Pick<UserWithKey, 'keyId' | 'value'>>;
  chat(session: string, model: string, by?: TestApp): ReturnType<TestApp['call']>;
  /** Waits for the change, then expects a 424 for that key only, without any upstream call or use of the default. */
  expectUndecryptable(
    owner: Pick<UserWithKey, 'session' | 'keyId'>,
    model: string,
    by?: TestApp,
  ): Promise<void>;
  /** Waits for the change, then expects that the upstream receives exactly this key and that its status is restored. */
  expectKeyUsed(owner: UserWithKey, model?: string): Promise<void>;
}

/** The caller stops it. */
export async function createScenario(layout: Layout): Promise<Scenario> {
  const upstream = await startUpstream();
  const installation = await install(layout, upstreamSettings(upstream.url));
  const { app } = installation;
  const scenario: Scenario = {
    ...installation,
    upstream,

    async createUserWithKey(options = {}) {
      const user = await installation.createUser();
      const session = await app.signIn(user);
      const key = options.key ?? openAiKey();
      const stored = await scenario.storeKey({ user, session }, { ...options, key });
      return { user, session, key, provider: options.provider ?? 'openai', ...stored };
    },

    async storeKey({ user, session }, options) {
      const body = { provider: 'openai', ...options };
      evidence.registerSecret('provider key', body.key);
      const response = await app.call('/api/v1/byok/keys/add', { method: 'POST', session, json: body });
      const keyId = Added.parse(await response.json()).key.id;
      const { attributes } = await installation.readRecord(user);
      const value = (attributes[`byok_${body.provider}`] ?? []).find((each) => each.includes(keyId)) ?? '';
      return { keyId, value };
    },

    chat: (session, model, by = app) =>
      by.call('/v1/chat/completions', {
        method: 'POST',
        session,
        json: { model, messages: [{ role: 'user', content: 'Hello' }] },
      }),

    async expectUndecryptable(owner, model, by = app) {
      await until(
        () => statusOf(scenario.chat(owner.session, model, by)),
        (status) => status === 424,
      );
      upstream.reset();
      const response = await scenario.chat(owner.session, model, by);
      expect(response.status).toBe(424);
      expect(await response.json()).toMatchObject({
        error: {
          code: 'key_undecryptable',
          skipped: [{ key_id: owner.keyId, reason: 'undecryptable' }],
        },
      });
      expect(response.headers.get('x-should-retry')).toBe('false');
      const test = `/api/v1/byok/keys/test/${model.split('/')[0] ?? ''}?key_id=${owner.keyId}`;
      const tested = await by.call(test, { method: 'POST', session: owner.session });
      expect(await tested.json()).toMatchObject({ status: 'undecryptable', details: { billed: false } });
      expect(upstream.requests).toHaveLength(0);
      expect(by.events('key_undecryptable').at(-1)).toMatchObject({ key_id: owner.keyId });
      await until(
        () => testStatus(by, owner, model),
        (status) => status === 'undecryptable',
      );
    },

    async expectKeyUsed(owner, model = `${owner.provider}/gpt-4o`) {
      await until(
        () => statusOf(scenario.chat(owner.session, model)),
        (status) => status === 200,
      );
      upstream.reset();
      const response = await scenario.chat(owner.session, model);
      expect(response.status).toBe(200);
      expect(response.headers.get('x-ops-key-id')).toBe(owner.keyId);
      expect((await upstream.received(1)).key).toBe(owner.key);
      await until(
        () => testStatus(app, owner, model),
        (status) => status !== 'undecryptable',
      );
    },

    async stop() {
      await installation.stop();
      await upstream.stop();
    },
  };
  return scenario;
}

/** A system default for every model. It must not be used where a stored key is damaged. */
export function upstreamSettings(url: string): Record<string, string> {
  return {
    UPSTREAM_OPENAI_URL: url,
    UPSTREAM_OPENROUTER_URL: url,
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: SYSTEM_KEY,
    DEFAULT_LLM_BASE_URL: url,
    DEFAULT_LLM_MODEL: 'any/model',
    DEFAULT_LLM_MODELS: '*',
  };
}

/** The key that the upstream receives when the system default is used. */
export const SYSTEM_KEY = 'sk-or-v1-of-the-system-default';

const Added = z.object({ key: z.object({ id: z.string() }) });
const Listed = z.array(z.looseObject({ id: z.string(), provider: z.string(), test_status: z.string() }));

/** Lists a user's keys through the API. */
export async function listKeys(app: TestApp, session: string): Promise<z.output<typeof Listed>> {
  const response = await app.call('/api/v1/byok/keys', { session });
  expect(response.status).toBe(200);
  return Listed.parse(await response.json());
}

/** The listed test status. It is written after the response. */
async function testStatus(
  app: TestApp,
  { session, keyId }: Pick<UserWithKey, 'session' | 'keyId'>,
  model: string,
): Promise<string | undefined> {
  const provider = model.split('/')[0];
  const keys = await listKeys(app, session);
  return keys.find((key) => key.id === keyId && key.provider === provider)?.test_status;
}

/** The status of a response. Its body is read and discarded. */
export async function statusOf(answer: ReturnType<TestApp['call']>): Promise<number> {
  const response = await answer;
  await response.text();
  return response.status;
}
