import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { adminClient, createUser, type TestUser } from '../support/stack.ts';
import { findStreamError, readEventStream } from '../support/stream.ts';
import { until } from '../support/until.ts';
import { answer, fault, type Upstream } from '../support/upstream.ts';

const CHAT = '/v1/chat/completions';
const ADD = '/api/v1/byok/keys/add';
/** A first check counts for 250 ms. */
const SLOW_MS = 300;
const hello = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };

let gateway: Gateway;
let app: TestApp;
let openai: Upstream;
let system: Upstream;
let user: TestUser;
let session: string;

beforeAll(async () => {
  gateway = await startGateway(() => ({
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: 'sk-or-the-system-default-key',
    DEFAULT_LLM_MODELS: '*',
  }));
  ({ app, openai, system } = gateway);
});
afterAll(() => gateway.stop());
afterEach(() => {
  gateway.reset();
});

async function signedIn(): Promise<void> {
  user = await createUser({ tier: 'starter' });
  session = await app.signIn(user);
}

/** Starts a request whose body is sent in two parts. Resolves when the app has authorized it. */
async function beginSlowly(path: string, json: object): Promise<() => Promise<[number, string]>> {
  const text = JSON.stringify(json);
  const sent = httpRequest(`${app.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', cookie: `session=${session}`, expect: '100-continue' },
  });
  const answered = once(sent, 'response') as Promise<[IncomingMessage]>;
  sent.flushHeaders();
  await once(sent, 'continue');
  sent.write(text.slice(0, 10));
  // A later request has passed the same guards, so this one has too.
  expect(await meStatus()).toBe(200);
  return async () => {
    await delay(SLOW_MS);
    sent.end(text.slice(10));
    const [response] = await answered;
    return [response.statusCode ?? 0, (await response.setEncoding('utf8').toArray()).join('')];
  };
}

const meStatus = async () => (await app.call('/api/v1/me', { session })).status;

/** Changes the user as an administrator would, and waits until the app uses the change. */
async function changeUser(changes: { enabled?: boolean; tier?: string }): Promise<void> {
  const admin = await adminClient();
  const { userProfileMetadata: _metadata, ...stored } = (await admin.users.findOne({ id: user.id })) ?? {};
  const attributes = { ...stored.attributes, ...(changes.tier ? { subscription_tier: [changes.tier] } : {}) };
  await admin.users.update({ id: user.id }, { ...stored, enabled: changes.enabled ?? true, attributes });
  await until(async () => {
    if (changes.enabled === false) return (await meStatus()) === 401;
    const me = (await (await app.call('/api/v1/me', { session })).json()) as { tier: string };
    return me.tier === changes.tier;
  });
}

async function countStoredKeys(): Promise<number> {
  const found = await (await adminClient('ops-center-vault')).users.find({ q: `owner:user:${user.id}` });
  return found.length;
}

describe('authorization after a slow body:', () => {
  it('a user who was disabled in the meantime adds no key', async () => {
    await signedIn();
    const finish = await beginSlowly(ADD, { provider: 'openai', key: openAiKey() });
    await changeUser({ enabled: false });
    const [status, text] = await finish();
    expect([status, text]).toEqual([401, expect.stringContaining('"unauthenticated"')]);
    expect(await countStoredKeys()).toBe(0);
  });

  it('a user who signed out in the meantime adds no key', async () => {
    await signedIn();
    const finish = await beginSlowly(ADD, { provider: 'openai', key: openAiKey() });
    expect((await app.call('/auth/logout', { method: 'POST', session })).status).toBe(303);
    expect((await finish())[0]).toBe(401);
    expect(await countStoredKeys()).toBe(0);
  });

  it('a user with a tier that fell below the route’s adds no key', async () => {
    await signedIn();
    const finish = await beginSlowly(ADD, { provider: 'openai', key: openAiKey() });
    await changeUser({ tier: 'trial' });
    const [status, text] = await finish();
    expect([status, text]).toEqual([403, expect.stringContaining('"tier_required"')]);
    expect(await countStoredKeys()).toBe(0);
  });

  it('a user who was disabled in the meantime reaches no provider', async () => {
    await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    const finish = await beginSlowly(CHAT, hello);
    await changeUser({ enabled: false });
    const [status, text] = await finish();
    expect([status, text]).toEqual([401, expect.stringContaining('"unauthenticated"')]);
    expect(openai.requests).toHaveLength(0);
    expect(system.requests).toHaveLength(0);
  });

  it('a chat request is routed by the user’s tier at the end of the body', async () => {
    await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    const finish = await beginSlowly(CHAT, hello);
    await changeUser({ tier: 'trial' });
    expect((await finish())[0]).toBe(200);
    expect(openai.requests).toHaveLength(0);
    expect(system.requests).toHaveLength(1);
  });

  it('an unchanged user is served', async () => {
    await signedIn();
    expect((await (await beginSlowly(ADD, { provider: 'openai', key: openAiKey() }))())[0]).toBe(201);
    expect((await (await beginSlowly(CHAT, hello))())[0]).toBe(200);
    expect(await meStatus()).toBe(200);
  });
});

describe('authorization that ends after the body went out to an upstream', () => {
  it('says that the request must not be sent again, since the upstream may charge for it', async () => {
    await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    openai.reply(fault.silent());
    const chat = app.call(CHAT, { method: 'POST', session, json: hello });
    await openai.received(1);
    await app.call('/auth/logout', { method: 'POST', session });
    const { status, headers } = await chat;
    expect([status, headers.get('x-should-retry')]).toEqual([401, 'false']);
  });

  it('says so as well between two attempts', async () => {
    await signedIn();
    for (const key of [openAiKey(), openAiKey()]) await addKey(app, session, { provider: 'openai', key });
    const gate = Promise.withResolvers<null>();
    openai.reply(async (writer) => {
      await gate.promise;
      await answer.error(401)(writer);
    });
    const chat = app.call(CHAT, { method: 'POST', session, json: hello });
    await openai.received(1);
    await changeUser({ tier: 'trial' });
    gate.resolve(null);
    const { status, headers } = await chat;
    expect([status, headers.get('x-should-retry')]).toEqual([403, 'false']);
  });

  it('says nothing of the kind where no body went out', async () => {
    await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    const { status, headers } = await app.call(CHAT, { method: 'POST', session, json: { model: 7 } });
    expect([status, headers.get('x-should-retry')]).toEqual([400, null]);
  });
});

describe('when the tier is lowered', () => {
  it('a stream on an own key ends within 10 s, and one that the system pays for goes on', async () => {
    await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    openai.answerAll(answer.endlessStream({ everyMs: 20 }));
    const gate = Promise.withResolvers<null>();
    system.answerAll(answer.held(1, gate.promise));
    const begin = async (model: string) => {
      const json = { ...hello, model, stream: true };
      const stream = readEventStream(await app.call(CHAT, { method: 'POST', session, json }));
      await stream.first;
      return stream;
    };
    const [own, paid] = [await begin('gpt-4o'), await begin('meta-llama/llama-3')];
    const loweredAtMs = performance.now();
    await changeUser({ tier: 'trial' });
    expect(findStreamError(await own.events)).toMatchObject({
      code: 'tier_required',
      required_tier: 'starter',
      current_tier: 'trial',
    });
    expect(performance.now() - loweredAtMs).toBeLessThan(10_000);
    await openai.closed(0);
    gate.resolve(null);
    expect((await paid.events).at(-1)).toBe('[DONE]');
    expect(await meStatus()).toBe(200);
  });

  it('a request on an own key that waits for the provider is a 403 that must not be sent again', async () => {
    await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    openai.reply(fault.silent());
    const chat = app.call(CHAT, { method: 'POST', session, json: hello });
    await openai.received(1);
    await changeUser({ tier: 'trial' });
    const { status, headers } = await chat;
    expect([status, headers.get('x-should-retry')]).toEqual([403, 'false']);
  });
});

describe('before the next key of a pool is tried', () => {
  it('the pool is read again: a deleted key is skipped and the one after it serves', async () => {
    await signedIn();
    const ids = new Map<string, string>();
    for (const key of [openAiKey(), openAiKey(), openAiKey()])
      ids.set(key, await addKey(app, session, { provider: 'openai', key }));
    const gate = Promise.withResolvers<null>();
    openai.reply(async (writer) => {
      await gate.promise;
      await answer.error(401)(writer);
    });
    const chat = app.call(CHAT, { method: 'POST', session, json: hello });
    const first = String((await openai.received(1)).key);
    const order = [...ids.keys()];
    const [next, last] = [1, 2].map((step) => order[(order.indexOf(first) + step) % 3]);
    await removeKey(ids.get(String(next)));
    gate.resolve(null);
    const response = await chat;
    expect([response.status, response.headers.get('x-ops-attempts')]).toEqual([200, '2']);
    expect(openai.requests.map(({ key }) => key)).toEqual([first, last]);
  });

  it('and the first refusal is the response when all other keys were deleted', async () => {
    await signedIn();
    const ids = new Map<string, string>();
    for (const key of [openAiKey(), openAiKey()])
      ids.set(key, await addKey(app, session, { provider: 'openai', key }));
    const gate = Promise.withResolvers<null>();
    openai.reply(async (writer) => {
      await gate.promise;
      await answer.error(401)(writer);
    });
    const chat = app.call(CHAT, { method: 'POST', session, json: hello });
    const first = String((await openai.received(1)).key);
    for (const [key, id] of ids) if (key !== first) await removeKey(id);
    gate.resolve(null);
    const response = await chat;
    expect([response.status, response.headers.get('x-ops-attempts')]).toEqual([401, '1']);
    expect(openai.requests).toHaveLength(1);
  });
});

async function removeKey(id: string | undefined): Promise<void> {
  const response = await app.call(`/api/v1/byok/keys/openai?key_id=${id}`, { method: 'DELETE', session });
  expect(response.status).toBe(200);
}
