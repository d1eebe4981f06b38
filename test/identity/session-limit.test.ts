import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createSessionStore } from '../../src/identity/session-store.ts';
import { createBrowser, signIn } from '../support/browser.ts';
import { startIdentityApp, type IdentityApp } from '../support/identity-app.ts';
import { createUser } from '../support/stack.ts';

const MAX_SESSIONS = 50;
let app: IdentityApp;

beforeAll(async () => {
  app = await startIdentityApp();
});
afterAll(() => app.close());

/** Writes a session that expires in so many minutes. @returns its id. */
async function insertSession(userId: string, minutes: number): Promise<string> {
  const id = randomUUID();
  await app.database.run(
    `INSERT INTO sessions (sid, sess, expire) VALUES ($1, $2, now() + make_interval(mins => $3))`,
    [
      id,
      JSON.stringify({ userId, keycloakSessionId: id, signedInAtMs: 1, tokens: '', refreshAtMs: 1 }),
      minutes,
    ],
  );
  return id;
}

const readIds = async (userId: string) =>
  (
    await app.database.rows(
      z.object({ sid: z.string() }),
      `SELECT sid FROM sessions WHERE sess ->> 'userId' = $1 ORDER BY expire`,
      [userId],
    )
  ).map(({ sid }) => sid);

describe('the sessions of one user', () => {
  it('are at most 50 after concurrent sign-ins, whatever their order, and others keep theirs', async () => {
    const store = createSessionStore(app.database);
    const others = await Promise.all([1, 2, 3].map((minutes) => insertSession('other', minutes)));
    for (let round = 0; round < 5; round += 1) {
      const user = randomUUID();
      const ids: string[] = [];
      const dropped = await Promise.all(
        Array.from({ length: 80 }, async (_, index) => {
          ids[index] = await insertSession(user, index + 1);
          return store.deleteOldestSessions(user, MAX_SESSIONS);
        }),
      );
      expect(await readIds(user)).toEqual(ids.slice(-MAX_SESSIONS));
      // Each is reported once, so that its work is ended.
      expect(dropped.flat().sort()).toEqual(ids.slice(0, -MAX_SESSIONS).sort());
    }
    expect(await readIds('other')).toEqual(others);
  });

  it('are at most 50 after a sign-in: the oldest one ends with its work', async () => {
    const user = await createUser();
    const oldest = createBrowser();
    await signIn(oldest, app.publicUrl, user);
    await app.database.run(
      `UPDATE sessions SET expire = now() + interval '1 minute' WHERE sess ->> 'userId' = $1`,
      [user.id],
    );
    for (let count = 1; count < MAX_SESSIONS; count += 1) await insertSession(user.id, count + 1);
    const work = oldest.get(`${app.publicUrl}/api/v1/work`);
    const newest = createBrowser();
    await signIn(newest, app.publicUrl, user);
    expect((await work).text).toContain('data: signed_out');
    expect((await oldest.get(`${app.publicUrl}/api/v1/me`)).status).toBe(401);
    expect((await newest.get(`${app.publicUrl}/api/v1/me`)).status).toBe(200);
    expect(await readIds(user.id)).toHaveLength(MAX_SESSIONS);
  });
});

it('a sign-in loop ends with a 429, and writes no further session or audit event', async () => {
  const user = await createUser();
  const browser = createBrowser();
  await signIn(browser, app.publicUrl, user);
  /** Keycloak knows the browser, so that it shows no page. */
  const signInAgain = async () => {
    const start = await browser.get(`${app.publicUrl}/auth/login`);
    const back = await browser.get(start.location ?? '');
    return (await browser.get(back.location ?? '')).status;
  };
  for (let count = 1; count < 30; count += 1) expect(await signInAgain()).toBe(303);
  for (let count = 0; count < 3; count += 1) expect(await signInAgain()).toBe(429);
  const events = await app.database.withOwner(`user:${user.id}`, (sql) =>
    sql.run('SELECT FROM audit_events'),
  );
  expect(events).toBe(30);
  expect((await browser.get(`${app.publicUrl}/api/v1/me`)).status).toBe(200);
});
