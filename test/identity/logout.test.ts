import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import pg from 'pg';
import { request } from 'undici';
import { z } from 'zod';
import { createActiveWork } from '../../src/identity/active-work.ts';
import { createLogout } from '../../src/identity/logout.ts';
import { createUserConnections } from '../../src/identity/user-connections.ts';
import { createSessionStore } from '../../src/identity/session-store.ts';
import { createBrowser, signIn, signInUpToCallback } from '../support/browser.ts';
import { until } from '../support/until.ts';
import { startIdentityApp, type IdentityApp } from '../support/identity-app.ts';
import { adminClient, createUser, stack } from '../support/stack.ts';

let app: IdentityApp;
beforeAll(async () => {
  // This app receives logouts by back-channel only.
  app = await startIdentityApp({ watch: false });
});
afterAll(async () => {
  await app.close();
});

const sessionOfCallback = (callback: string) => new URL(callback).searchParams.get('session_state') ?? '';

async function countSessions(userId: string): Promise<number> {
  const [row] = await app.database.rows(
    z.object({ count: z.coerce.number() }),
    `SELECT count(*) FROM sessions WHERE sess ->> 'userId' = $1`,
    [userId],
  );
  return row?.count ?? -1;
}

describe('a logout during a sign-in', () => {
  it('wins if it happens after the code is redeemed and before the session is saved', async () => {
    const user = await createUser();
    const browser = createBrowser();
    const callback = await signInUpToCallback(browser, `${app.publicUrl}/auth/login`, user);
    const gate = await holdInserts(app.databaseUrl.ownerUrl);
    const answer = browser.get(callback);
    await gate.waitForInsert();
    // Keycloak waits for the response to its back-channel call. Then markers are written and rows are deleted.
    await (await adminClient()).users.logout({ id: user.id });
    await gate.release();
    expect((await answer).status).toBe(401);
    expect((await answer).text).toContain('signed out during the sign-in');
    expect(browser.cookie('session')).toBeUndefined();
    expect(await countSessions(user.id)).toBe(0);
  });

  it('cannot be undone by a second save: a sign-in writes its session once', async () => {
    const user = await createUser();
    const owner = new pg.Client({ connectionString: app.databaseUrl.ownerUrl });
    await owner.connect();
    try {
      await owner.query(`
        CREATE TABLE session_writes (sid text);
        CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
          $$ BEGIN INSERT INTO public.session_writes VALUES (NEW.sid); RETURN NEW; END $$;
        CREATE TRIGGER note_write BEFORE INSERT OR UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION note_write()`);
      const browser = createBrowser();
      for (const time of ['first', 'second']) {
        const callback = await signInUpToCallback(browser, `${app.publicUrl}/auth/login`, user);
        await browser.get(callback);
        expect((await browser.get(`${app.publicUrl}/api/v1/me`)).status).toBe(200);
        const { rowCount } = await owner.query('DELETE FROM session_writes');
        expect([time, rowCount]).toEqual([time, 1]);
      }
    } finally {
      await owner.query(
        'DROP TRIGGER note_write ON sessions; DROP FUNCTION note_write; DROP TABLE session_writes',
      );
      await owner.end();
    }
  });

  it('wins at any moment', async () => {
    const admin = await adminClient();
    const user = await createUser();
    for (let round = 0; round < 20; round += 1) {
      const browser = createBrowser();
      const callback = await signInUpToCallback(browser, `${app.publicUrl}/auth/login`, user);
      const session = sessionOfCallback(callback);
      const signingIn = browser.get(callback);
      await new Promise((resolve) => setTimeout(resolve, round * 3));
      await admin.realms.deleteSession({ realm: stack.keycloak.realm, session, isOffline: false });
      await signingIn;
      const me = await browser.get(`${app.publicUrl}/api/v1/me`);
      expect({ round, status: me.status, rows: await countSessions(user.id) }).toEqual({
        round,
        status: 401,
        rows: 0,
      });
    }
  });
});

interface Gate {
  waitForInsert(): Promise<void>;
  release(): Promise<void>;
}

/** Makes every insert into `sessions` wait, and nothing else. */
async function holdInserts(ownerUrl: string): Promise<Gate> {
  const client = new pg.Client({ connectionString: ownerUrl });
  await client.connect();
  await client.query(`
    CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END $$;
    CREATE TRIGGER wait_for_test BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION wait_for_test();
    SELECT pg_advisory_lock(4711)`);
  const waiters = async () =>
    (await client.query(`SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted`))
      .rowCount;
  return {
    waitForInsert: async () => void (await until(async () => (await waiters()) === 1)),
    async release() {
      await client.query('SELECT pg_advisory_unlock(4711)');
      await client.query('DROP TRIGGER wait_for_test ON sessions; DROP FUNCTION wait_for_test');
      await client.end();
    },
  };
}

describe('back-channel logout', () => {
  /** Server at the app's back-channel address that records Keycloak's requests. */
  let recorder: Server;
  const received: string[] = [];

  beforeAll(async () => {
    recorder = createServer((incoming, response) => {
      let text = '';
      incoming.on('data', (chunk: Buffer) => (text += chunk.toString()));
      incoming.on('end', () => {
        received.push(text);
        response.end();
      });
    }).listen(0, '127.0.0.1');
    await once(recorder, 'listening');
  });
  afterAll(async () => {
    const closed = once(recorder, 'close');
    recorder.close();
    recorder.closeAllConnections();
    await closed;
  });

  async function setBackchannel(url: string): Promise<void> {
    const admin = await adminClient();
    const [client] = await admin.clients.find({ clientId: app.webClient.id });
    if (client?.id === undefined) throw new Error('no web client');
    const attributes = { ...client.attributes, 'backchannel.logout.url': url };
    await admin.clients.update({ id: client.id }, { ...client, attributes });
  }

  async function send(body: string, contentType = 'application/x-www-form-urlencoded') {
    const answer = await request(`${app.publicUrl}/auth/backchannel-logout`, {
      method: 'POST',
      headers: { 'content-type': contentType },
      body,
    });
    return { status: answer.statusCode, headers: answer.headers, text: await answer.body.text() };
  }

  it('accepts a token of Keycloak once, and refuses it altered or a second time', async () => {
    await setBackchannel(`http://127.0.0.1:${String((recorder.address() as AddressInfo).port)}/`);
    const user = await createUser();
    const browser = createBrowser();
    await signIn(browser, app.publicUrl, user);
    await (await adminClient()).users.logout({ id: user.id });
    await setBackchannel(`${app.publicUrl}/auth/backchannel-logout`);
    const [body = ''] = received;
    expect(body).toMatch(/logout_token=eyJ/);

    const altered = await send(`${body.slice(0, -6)}AAAAAA`);
    expect(altered.status).toBe(400);
    expect(altered.headers['cache-control']).toBe('no-store');
    expect((await browser.get(`${app.publicUrl}/api/v1/me`)).status).toBe(200);

    const accepted = await send(body);
    expect(accepted).toMatchObject({ status: 200, text: '' });
    expect(accepted.headers['cache-control']).toBe('no-store');
    expect((await browser.get(`${app.publicUrl}/api/v1/me`)).status).toBe(401);

    expect((await send(body)).status).toBe(400);
  });

  it.each([
    ['no token', '', undefined],
    ['two tokens', 'logout_token=a&logout_token=b', undefined],
    ['no form', '{"logout_token":"a"}', 'application/json'],
    ['an overlong form', `logout_token=${'a'.repeat(100_000)}`, undefined],
  ])('refuses %s', async (_name, body, contentType) => {
    expect([400, 413]).toContain((await send(body, contentType)).status);
  });
});

describe('ending sessions by time', () => {
  const activeWork = createActiveWork();

  async function insert(sid: string, content: Record<string, unknown>): Promise<void> {
    await app.database.run(
      `INSERT INTO sessions (sid, sess, expire) VALUES ($1, $2, now() + interval '1 hour')`,
      [sid, JSON.stringify({ tokens: 'x', refreshAtMs: 0, ...content })],
    );
  }

  it('ends sign-ins up to the time of the logout, for one user or for all, and keeps later ones', async () => {
    const store = createSessionStore(app.database);
    const logout = createLogout({
      store,
      activeWork,
      connections: createUserConnections(),
      serverConnections: createUserConnections(),
    });
    await insert('a1', { userId: 'a', keycloakSessionId: 'ka1', signedInAtMs: 1_000 });
    await insert('a2', { userId: 'a', keycloakSessionId: 'ka2', signedInAtMs: 2_000 });
    await insert('a3', { userId: 'a', keycloakSessionId: 'ka3', signedInAtMs: 3_000 });
    await insert('b1', { userId: 'b', keycloakSessionId: 'kb1', signedInAtMs: 1_000 });
    const validIds = async () => [...(await store.listValidSessionIds(['a1', 'a2', 'a3', 'b1']))].sort();
    await logout.endUserUntil('a', 2_000);
    expect(await validIds()).toEqual(['a3', 'b1']);
    await logout.endAllUntil(2_999);
    expect(await validIds()).toEqual(['a3']);
    await logout.endKeycloakSessions(['ka3']);
    expect(await validIds()).toEqual([]);
  });

  it('marks logouts for pending sign-ins: of a user up to the latest time, of a session without a limit', async () => {
    const store = createSessionStore(app.database);
    const logout = createLogout({
      store,
      activeWork,
      connections: createUserConnections(),
      serverConnections: createUserConnections(),
    });
    await logout.endUserUntil('m', 5_000_000);
    await logout.endUserUntil('m', 4_000_000);
    await logout.endKeycloakSessions(['km']);
    const signIn = (userId: string, keycloakSessionId: string, signedInAtMs: number) =>
      store.isLoggedOut({ userId, keycloakSessionId, signedInAtMs });
    expect(await signIn('m', 'other', 5_000_000)).toBe(true);
    expect(await signIn('m', 'other', 5_001_000)).toBe(false);
    expect(await signIn('n', 'km', Date.now() + 1_000_000)).toBe(true);
    await logout.endAllUntil(9_000_000);
    expect(await signIn('n', 'other', 9_000_000)).toBe(true);
    expect(await signIn('n', 'other', 9_001_000)).toBe(false);
  });

  it('prunes expired markers and token ids only', async () => {
    const store = createSessionStore(app.database);
    await store.markKeycloakSessions(['old', 'new'], Infinity);
    await app.database.run(
      `UPDATE logout_markers SET expires_at = now() - interval '1 s' WHERE value = 'old'`,
    );
    await store.markLogoutTokenSeen('old', Date.now() - 1_000);
    expect(await store.markLogoutTokenSeen('new', Date.now() + 60_000)).toBe(true);
    const isOut = (id: string) =>
      store.isLoggedOut({ userId: 'z', keycloakSessionId: id, signedInAtMs: Date.now() });
    expect(await isOut('old')).toBe(false);
    await store.prune();
    expect(await isOut('new')).toBe(true);
    expect(await store.markLogoutTokenSeen('new', Date.now() + 60_000)).toBe(false);
    expect(await store.markLogoutTokenSeen('old', Date.now())).toBe(true);
  });
});
