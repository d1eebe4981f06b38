import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { createActiveWork } from '../../src/identity/active-work.ts';
import { createLogout } from '../../src/identity/logout.ts';
import { createUserConnections } from '../../src/identity/user-connections.ts';
import type { SignInResult } from '../../src/identity/oidc.ts';
import type { StoredSession } from '../../src/identity/schema.ts';
import { createSessionRefresh } from '../../src/identity/session-refresh.ts';
import { createSessionStore, type SessionStore } from '../../src/identity/session-store.ts';
import { decryptSessionTokens, encryptSessionTokens } from '../../src/identity/session-tokens.ts';
import { AppError } from '../../src/lib/errors.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { createBrowser, signIn, type Browser } from '../support/browser.ts';
import { startIdentityApp, type IdentityApp } from '../support/identity-app.ts';
import { adminClient, createUser, stack, type TestUser } from '../support/stack.ts';

let app: IdentityApp;
let store: SessionStore;
beforeAll(async () => {
  app = await startIdentityApp({ watch: false });
  store = createSessionStore(app.database);
});
afterAll(async () => {
  await app.close();
});

const makeDue = (userId: string) =>
  app.database.run(`UPDATE sessions SET sess = sess || '{"refreshAtMs": 0}' WHERE sess ->> 'userId' = $1`, [
    userId,
  ]);

async function signedIn(): Promise<{
  user: TestUser;
  browser: Browser;
  me: () => Promise<number>;
  sid: string;
}> {
  const user = await createUser();
  const browser = createBrowser();
  await signIn(browser, app.publicUrl, user);
  const sid = /^s:(.+)\./.exec(decodeURIComponent(browser.cookie('session') ?? ''))?.[1] ?? '';
  return { user, browser, sid, me: async () => (await browser.get(`${app.publicUrl}/api/v1/me`)).status };
}

describe('refreshing a session with Keycloak', () => {
  it('happens on use if it is due, and keeps the session', async () => {
    const { user, me, sid } = await signedIn();
    const before = await store.findSession(sid);
    expect(await me()).toBe(200);
    expect(await store.findSession(sid)).toEqual(before);
    await makeDue(user.id);
    expect(await Promise.all([me(), me(), me(), me()])).toEqual([200, 200, 200, 200]);
    const after = await store.findSession(sid);
    expect(after?.tokens).not.toBe(before?.tokens);
    expect(after?.refreshAtMs).toBeGreaterThan(Date.now());
    expect(after).toMatchObject({ userId: user.id, signedInAtMs: before?.signedInAtMs });
  });

  it('ends the session if the Keycloak session has ended', async () => {
    const { user, me, sid } = await signedIn();
    const admin = await adminClient();
    const session = await store.findSession(sid);
    // Back-channel logout would end the session before, so it is off for this client.
    const [client] = await admin.clients.find({ clientId: app.webClient.id });
    const attributes = { ...client?.attributes, 'backchannel.logout.url': 'http://127.0.0.1:1/' };
    await admin.clients.update({ id: client?.id ?? '' }, { ...client, attributes });
    await admin.realms.deleteSession({
      realm: stack.keycloak.realm,
      session: session?.keycloakSessionId ?? '',
      isOffline: false,
    });
    expect(await me()).toBe(200);
    await makeDue(user.id);
    expect(await me()).toBe(401);
    expect(await store.findSession(sid)).toBeUndefined();
  });

  it('ends a session with the tokens of another session', async () => {
    const [first, second] = [await signedIn(), await signedIn()];
    const foreign = await store.findSession(second.sid);
    await store.replaceTokens(first.sid, { tokens: foreign?.tokens ?? '', refreshAtMs: 0 });
    expect(await first.me()).toBe(401);
    expect(await second.me()).toBe(200);
  });
});

describe('a refresh with a scripted response', () => {
  const keyring = createKeyring([`${randomBytes(32).toString('base64url')}=`]);

  async function setUp(refresh: (session: StoredSession) => Promise<SignInResult | undefined>) {
    const binding = {
      userId: randomBytes(8).toString('hex'),
      keycloakSessionId: randomBytes(8).toString('hex'),
    };
    const id = randomBytes(8).toString('hex');
    const tokens = encryptSessionTokens(keyring, binding, { idToken: 'id-1', refreshToken: 'refresh-1' });
    const session: StoredSession = {
      ...{ id, ...binding, signedInAtMs: 1_000, tokens, refreshAtMs: 0 },
      ...{ authenticatedAtMs: 1_000, client: null },
    };
    const { id: _id, ...content } = session;
    await app.database.run(
      `INSERT INTO sessions (sid, sess, expire) VALUES ($1, $2, now() + interval '1 hour')`,
      [id, JSON.stringify(content)],
    );
    const refreshTokens: string[] = [];
    const oidc = {
      refresh(token: string) {
        refreshTokens.push(token);
        return refresh(session);
      },
    };
    const logout = createLogout({
      store,
      activeWork: createActiveWork(),
      connections: createUserConnections(),
      serverConnections: createUserConnections(),
    });
    return {
      session,
      refreshTokens,
      refreshIfDue: createSessionRefresh({ oidc, keyring, store, logout }),
    };
  }

  const renewed = (session: StoredSession): SignInResult => ({
    userId: session.userId,
    keycloakSessionId: session.keycloakSessionId,
    signedInAtMs: 2_000,
    authenticatedAtMs: 1_000,
    idToken: 'id-2',
    refreshToken: 'refresh-2',
    refreshAtMs: Date.now() + 60_000,
  });

  it('makes one request for all requests of a session, also for one that loaded its row before', async () => {
    const { session, refreshTokens, refreshIfDue } = await setUp((current) =>
      Promise.resolve(renewed(current)),
    );
    expect(await Promise.all([refreshIfDue(session), refreshIfDue(session)])).toEqual([true, true]);
    expect(await refreshIfDue(session)).toBe(true);
    expect(refreshTokens).toEqual(['refresh-1']);
    const row = await store.findSession(session.id);
    expect(decryptSessionTokens(keyring, session, row?.tokens ?? '')).toEqual({
      idToken: 'id-2',
      refreshToken: 'refresh-2',
    });
  });

  it('never restores a session that was ended during the refresh', async () => {
    const { session, refreshIfDue } = await setUp(async (current) => {
      await store.deleteSession(current.id);
      return renewed(current);
    });
    expect(await refreshIfDue(session)).toBe(false);
    expect(await store.findSession(session.id)).toBeUndefined();
  });

  it('keeps the session while Keycloak is unavailable, and refreshes at the next use', async () => {
    const { session, refreshTokens, refreshIfDue } = await setUp(() =>
      Promise.reject(new AppError('keycloak_unavailable', 'Keycloak is unavailable')),
    );
    expect(await refreshIfDue(session)).toBe(true);
    expect(await refreshIfDue(session)).toBe(true);
    expect(refreshTokens).toHaveLength(2);
    expect(await store.findSession(session.id)).toBeDefined();
  });

  it('keeps the session if another instance has used the refresh token', async () => {
    const { session, refreshIfDue } = await setUp(async (current) => {
      await store.replaceTokens(current.id, {
        tokens: encryptSessionTokens(keyring, current, { idToken: 'id-3', refreshToken: 'refresh-3' }),
        refreshAtMs: Date.now() + 60_000,
      });
      return undefined;
    });
    expect(await refreshIfDue(session)).toBe(true);
    expect(await store.findSession(session.id)).toBeDefined();
  });

  it('ends the session if Keycloak returns another user', async () => {
    const { session, refreshIfDue } = await setUp((current) =>
      Promise.resolve({ ...renewed(current), userId: 'another user' }),
    );
    expect(await refreshIfDue(session)).toBe(false);
    expect(await store.findSession(session.id)).toBeUndefined();
  });
});
