import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { request, type Dispatcher } from 'undici';
import { SCOPES, type Principal } from '../../src/http/principal.ts';
import { randomId } from '../../src/lib/ids.ts';
import { createTokenText } from '../../src/tokens/token-format.ts';
import { createTokenReader } from '../../src/tokens/token-reader.ts';
import { createBrowser, signIn } from '../support/browser.ts';
import { evidence } from '../support/evidence.ts';
import { startIdentityApp, type IdentityApp } from '../support/identity-app.ts';
import { adminClient, createUser, type TestUser } from '../support/stack.ts';
import { bearer } from '../support/token.ts';
import { until } from '../support/until.ts';

/** Three processes on one database. */
let one: IdentityApp;
let two: IdentityApp;
/** Runs nothing beside its requests, so that all queries and calls to Keycloak are theirs. */
let quiet: IdentityApp;
let user: TestUser;

beforeAll(async () => {
  one = await startIdentityApp();
  two = await startIdentityApp({ sharedWith: one });
  quiet = await startIdentityApp({ sharedWith: one, watch: false });
  user = await createUser({ tier: 'starter' });
});
afterAll(async () => {
  await quiet.close();
  await two.close();
  await one.close();
});

/** The principal of a session whose user has just entered the password. */
function createSignedIn(id: string): Principal {
  return {
    user: { id, username: 'user', email: null, name: null, tier: 'starter' },
    ...{
      credential: 'session',
      scopes: new Set(),
      token: null,
      sessionId: 'session',
      keycloakSessionId: null,
    },
    authenticatedAtMs: Date.now(),
  };
}

async function createToken(userId = user.id, expiresAt?: string) {
  const body = { name: 'A test', scopes: [...SCOPES], expires_at: expiresAt ?? null };
  const created = await one.tokens.create(createSignedIn(userId), randomId(), body, 'request');
  evidence.registerSecret('credential of a request', created.token);
  return created;
}

async function ask(headers: Record<string, string | string[]>, app = one): Promise<number> {
  const { statusCode, body } = await request(`${app.publicUrl}/api/v1/me`, { headers, reset: true });
  await body.dump();
  return statusCode;
}

/** A stream that the app keeps open as work of the token. */
function openWork(token: string, app: IdentityApp): Promise<Dispatcher.ResponseData> {
  return request(`${app.publicUrl}/api/v1/work`, { headers: bearer(token) });
}

/** Counts the queries of the quiet app and its calls to Keycloak during `work`. */
async function countCalls(work: () => Promise<void>) {
  const connects = jest.spyOn(quiet.database.pool, 'connect');
  const before = quiet.keycloakCalls();
  try {
    await work();
    return { queries: connects.mock.calls.length, keycloakCalls: quiet.keycloakCalls() - before };
  } finally {
    connects.mockRestore();
  }
}

describe('a personal token', () => {
  it.each<[string, (token: string) => Record<string, string | string[]>]>([
    ['Authorization', (token) => ({ authorization: `Bearer ${token}` })],
    ['Authorization in other letter case', (token) => ({ authorization: `bearer  ${token}` })],
    ['x-api-key', (token) => ({ 'x-api-key': token })],
    ['both, of which Authorization decides', (token) => ({ ...bearer(token), 'x-api-key': 'x' })],
  ])('is accepted in %s', async (_name, toHeaders) => {
    expect(await ask(toHeaders((await createToken()).token))).toBe(200);
  });

  it.each<[string, (token: string) => Record<string, string | string[]>]>([
    ['a wrong checksum', (token) => bearer(token.slice(0, -1) + (token.endsWith('x') ? 'y' : 'x'))],
    ['the text of another token', () => bearer(createTokenText())],
    ['a second Authorization', (token) => ({ authorization: [`Bearer ${token}`, `Bearer ${token}`] })],
    ['a second x-api-key', (token) => ({ 'x-api-key': [token, token] })],
    ['another scheme', (token) => ({ authorization: `Basic ${token}` })],
    ['Bearer in x-api-key', (token) => ({ 'x-api-key': `Bearer ${token}` })],
    [
      'an invalid Authorization beside a valid x-api-key',
      (token) => ({ ...bearer('oc_x'), 'x-api-key': token }),
    ],
  ])('is refused with %s, and the cookie beside it does not count', async (_name, toHeaders) => {
    const browser = createBrowser();
    await signIn(browser, one.publicUrl, user);
    const cookie = browser.cookieHeader(one.publicUrl);
    expect(await ask({ cookie })).toBe(200);
    expect(await ask({ ...toHeaders((await createToken()).token), cookie })).toBe(401);
  });

  it('with a wrong checksum causes no query and no call to Keycloak', async () => {
    const { token } = await createToken();
    const wrong = token.slice(0, -1) + (token.endsWith('x') ? 'y' : 'x');
    const calls = await countCalls(async () => {
      expect(await ask(bearer(wrong), quiet)).toBe(401);
      expect(await ask({ 'x-api-key': wrong }, quiet)).toBe(401);
    });
    expect(calls).toEqual({ queries: 0, keycloakCalls: 0 });
  });

  it('that was used before causes neither a query nor a call to Keycloak', async () => {
    const other = await createUser({ tier: 'free' });
    const { token } = await createToken(other.id);
    const cold = await countCalls(async () => expect(await ask(bearer(token), quiet)).toBe(200));
    expect(cold.queries).toBeGreaterThan(0);
    expect(cold.keycloakCalls).toBe(1);
    // The use is written in the background, once a minute.
    await until(async () => (await one.tokens.list(other.id))[0]?.last_used_at !== null);
    await quiet.tokens.flush();
    const warm = await countCalls(async () => {
      for (let count = 0; count < 20; count += 1) expect(await ask(bearer(token), quiet)).toBe(200);
    });
    expect(warm).toEqual({ queries: 0, keycloakCalls: 0 });
  });

  it('is refused after its expiry, also when it was read before', async () => {
    const { token } = await createToken(user.id, new Date(Date.now() + 4_000).toISOString());
    expect(await ask(bearer(token))).toBe(200);
    await until(async () => (await ask(bearer(token))) === 401, Boolean, 6_000);
  });

  it('is refused once its user is disabled, and its work ends', async () => {
    const other = await createUser({ tier: 'starter' });
    const { token } = await createToken(other.id);
    const work = await openWork(token, two);
    await (await adminClient()).users.update({ id: other.id }, { enabled: false });
    expect(await work.body.text().catch(() => 'closed')).toMatch(/signed_out|closed/);
    await until(async () => (await ask(bearer(token), two)) === 401);
  });
});

describe('a revoked token', () => {
  it('is refused by all processes within 1 s, and its streams end there', async () => {
    const { token, id } = await createToken();
    const [work] = await Promise.all([openWork(token, two), ask(bearer(token), two)]);
    const revokedAt = performance.now();
    await one.tokens.revoke(user.id, id, 'request');
    expect(await ask(bearer(token))).toBe(401);
    await until(async () => (await ask(bearer(token), two)) === 401, Boolean, 1_000);
    expect(performance.now() - revokedAt).toBeLessThan(1_000);
    expect(await work.body.text()).toContain('signed_out');
  });

  it('ends no work of another token of the user', async () => {
    const [revoked, kept] = [await createToken(), await createToken()];
    const controller = new AbortController();
    const { signal } = controller;
    const work = await request(`${one.publicUrl}/api/v1/work`, { headers: bearer(kept.token), signal });
    const ended = one.ended.length;
    await one.tokens.revoke(user.id, revoked.id, 'request');
    expect(await ask(bearer(kept.token))).toBe(200);
    expect(one.ended).toHaveLength(ended);
    controller.abort();
    await work.body.dump().catch(() => undefined);
  });

  it('ends its work within 10 s where no notification arrives: an expired token has none', async () => {
    const expiresAtMs = Date.now() + 4_000;
    const { token } = await createToken(user.id, new Date(expiresAtMs).toISOString());
    const work = await openWork(token, one);
    expect(await work.body.text()).toContain('signed_out');
    expect(Date.now() - expiresAtMs).toBeLessThan(10_000);
  });
});

describe('the cache of tokens', () => {
  function createReader() {
    const state: { isListening: boolean; notify: (id: string) => void; gap: () => void } = {
      isListening: true,
      notify: () => undefined,
      gap: () => undefined,
    };
    const reader = createTokenReader({
      database: quiet.database,
      notifications: {
        isListening: () => state.isListening,
        onNotification: (_channel, handler) => void (state.notify = handler),
        onGap: (handler) => void (state.gap = handler),
      },
    });
    return { reader, state };
  }

  it('is not used while notifications do not arrive', async () => {
    const { token, id } = await createToken();
    const { reader, state } = createReader();
    expect(await reader.find(token)).toMatchObject({ id });
    await one.tokens.revoke(user.id, id, 'request');
    expect(await reader.find(token)).toMatchObject({ id });
    state.isListening = false;
    expect(await reader.find(token)).toBeUndefined();
  });

  it.each<[string, (state: ReturnType<typeof createReader>['state'], id: string) => void]>([
    ['a notification of its deletion', (state, id) => state.notify(id)],
    ['a gap in the notifications', (state) => state.gap()],
  ])('drops a token after %s', async (_name, change) => {
    const { token, id } = await createToken();
    const { reader, state } = createReader();
    expect(await reader.find(token)).toMatchObject({ id });
    await one.tokens.revoke(user.id, id, 'request');
    change(state, id);
    expect(await reader.find(token)).toBeUndefined();
  });

  it('keeps no token that does not exist, so that guesses displace none in use', async () => {
    const { reader } = createReader();
    const guess = createTokenText();
    const { queries } = await countCalls(async () => {
      for (let count = 0; count < 3; count += 1) expect(await reader.find(guess)).toBeUndefined();
    });
    expect(queries).toBe(3);
  });
});

describe('all tokens of a user', () => {
  it('are revoked, with audit events, when the user is removed', async () => {
    const other = await createUser({ tier: 'free' });
    const tokens = [await createToken(other.id), await createToken(other.id)];
    for (const { token } of tokens) expect(await ask(bearer(token))).toBe(200);
    await one.tokens.removeUser(other.id, 'request', 'system:keycloak');
    expect(await one.tokens.list(other.id)).toEqual([]);
    for (const { token } of tokens) expect(await ask(bearer(token))).toBe(401);
    const events = await one.database.withOwner(`user:${other.id}`, (sql) =>
      sql.run(`SELECT FROM audit_events WHERE action = 'token.revoked' AND actor = 'system:keycloak'`),
    );
    expect(events).toBe(2);
  });
});
