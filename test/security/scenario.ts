import { expect } from '@jest/globals';
import { z } from 'zod';
import type { TestApp } from '../support/app.ts';
import { evidence } from '../support/evidence.ts';
import { openAiKey } from '../support/key.ts';
import type { TestUser } from '../support/stack.ts';
import { startUpstream, type Upstream } from '../support/upstream.ts';
import { until } from '../support/until.ts';
import { install, type Installation, type Layout } from './installation.ts';

/** Someone with a key of their own. */
export interface UserWithKey {
  user: TestUser;
  session: string;
  provider: string;
  key: string;
  keyId: string;
  /** What the vault holds of the key. */
  value: string;
}

/** What `POST /keys/add` takes beside provider and key. */
export interface KeyOptions {
  provider?: string;
  key?: string;
  label?: string;
  endpoint?: string;
  expires_at?: string;
  key_id?: string;
}

/** An installation whose every upstream is one double, and whose system default would pay for any model. */
export interface Scenario extends Installation {
  upstream: Upstream;
  createUserWithKey(options?: KeyOptions): Promise<UserWithKey>;
  /** Adds or replaces a key over the API; answers its id and the value that is stored. */
  storeKey(
    person: Pick<UserWithKey, 'user' | 'session'>,
    options: KeyOptions & { key: string },
  ): Promise<Pick<UserWithKey, 'keyId' | 'value'>>;
  chat(session: string, model: string, by?: TestApp): ReturnType<TestApp['call']>;
  /** Once the change is seen, the chat is refused for that key alone, nobody is called and nobody else pays. */
  expectUndecryptable(
    person: Pick<UserWithKey, 'session' | 'keyId'>,
    model: string,
    by?: TestApp,
  ): Promise<void>;
  /** Once the change is seen, the key serves and is shown as whole, and the upstream gets exactly it. */
  expectKeyUsed(person: UserWithKey, model?: string): Promise<void>;
}

/** Whoever makes it stops it. */
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

    async expectUndecryptable(person, model, by = app) {
      await until(
        () => statusOf(scenario.chat(person.session, model, by)),
        (status) => status === 424,
      );
      upstream.reset();
      const response = await scenario.chat(person.session, model, by);
      expect(response.status).toBe(424);
      expect(await response.json()).toMatchObject({
        error: {
          code: 'key_undecryptable',
          skipped: [{ key_id: person.keyId, reason: 'undecryptable' }],
        },
      });
      expect(response.headers.get('x-should-retry')).toBe('false');
      const test = `/api/v1/byok/keys/test/${model.split('/')[0] ?? ''}?key_id=${person.keyId}`;
      const tested = await by.call(test, { method: 'POST', session: person.session });
      expect(await tested.json()).toMatchObject({ status: 'undecryptable', details: { billed: false } });
      expect(upstream.requests).toHaveLength(0);
      expect(by.events('key_undecryptable').at(-1)).toMatchObject({ key_id: person.keyId });
      await until(
        () => testStatus(by, person, model),
        (status) => status === 'undecryptable',
      );
    },

    async expectKeyUsed(person, model = `${person.provider}/gpt-4o`) {
      await until(
        () => statusOf(scenario.chat(person.session, model)),
        (status) => status === 200,
      );
      upstream.reset();
      const response = await scenario.chat(person.session, model);
      expect(response.status).toBe(200);
      expect(response.headers.get('x-ops-key-id')).toBe(person.keyId);
      expect((await upstream.received(1)).key).toBe(person.key);
      await until(
        () => testStatus(app, person, model),
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

/** The system would pay for every model: it must not, where a key of one's own is damaged. */
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

/** What the upstream sees when the system pays. */
export const SYSTEM_KEY = 'sk-or-v1-of-the-system-default';

const Added = z.object({ key: z.object({ id: z.string() }) });
const Listed = z.array(z.looseObject({ id: z.string(), provider: z.string(), test_status: z.string() }));

/** A person's keys as they are listed. */
export async function listKeys(app: TestApp, session: string): Promise<z.output<typeof Listed>> {
  const response = await app.call('/api/v1/byok/keys', { session });
  expect(response.status).toBe(200);
  return Listed.parse(await response.json());
}

/** How the key is listed; it is noted after the answer. */
async function testStatus(
  app: TestApp,
  { session, keyId }: Pick<UserWithKey, 'session' | 'keyId'>,
  model: string,
): Promise<string | undefined> {
  const provider = model.split('/')[0];
  const keys = await listKeys(app, session);
  return keys.find((key) => key.id === keyId && key.provider === provider)?.test_status;
}

/** The status of an answer, its body read and let go. */
export async function statusOf(answer: ReturnType<TestApp['call']>): Promise<number> {
  const response = await answer;
  await response.text();
  return response.status;
}
