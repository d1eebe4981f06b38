import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { request } from 'undici';
import { z } from 'zod';
import { createBrowser, signIn, type Browser } from '../support/browser.ts';
import { until } from '../support/until.ts';
import { startIdentityApp, type IdentityApp } from '../support/identity-app.ts';
import { adminClient, createUser, stack, type TestUser } from '../support/stack.ts';

/** Receives logouts by back-channel and by events. */
let app: IdentityApp;
/** Keycloak cannot reach it, so it has only events. */
let unreachable: IdentityApp;

beforeAll(async () => {
  app = await startIdentityApp();
  unreachable = await startIdentityApp();
  await breakBackchannel(unreachable);
});
afterAll(async () => {
  await Promise.all([app.close(), unreachable.close()]);
});

async function breakBackchannel(target: IdentityApp): Promise<void> {
  const admin = await adminClient();
  const [client] = await admin.clients.find({ clientId: target.webClient.id });
  if (client?.id === undefined) throw new Error('no web client');
  const attributes = { ...client.attributes, 'backchannel.logout.url': 'http://127.0.0.1:1/' };
  await admin.clients.update({ id: client.id }, { ...client, attributes });
}

/** A running stream. Wrapped in an object, because a returned promise would be awaited. */
interface Work {
  /** Text of the stream, after it has ended. */
  text: Promise<string>;
}

async function beginWork(target: IdentityApp, browser: Browser): Promise<Work> {
  const { statusCode, body } = await request(`${target.publicUrl}/api/v1/work`, {
    headers: { cookie: browser.cookieHeader(target.publicUrl) },
  });
  expect(statusCode).toBe(200);
  const text = body.text();
  // If a test fails, its stream is cut later.
  text.catch(() => undefined);
  return { text };
}

async function signInAndWork(target: IdentityApp): Promise<{ user: TestUser; browser: Browser; work: Work }> {
  const user = await createUser({ tier: 'starter' });
  const browser = createBrowser();
  await signIn(browser, target.publicUrl, user);
  return { user, browser, work: await beginWork(target, browser) };
}

async function expectEndOf(target: IdentityApp, user: TestUser, work: Work): Promise<void> {
  expect(await work.text).toContain('data: signed_out');
  await until(async () => (await sessionsOf(target, user)).length === 0);
}

const SessionRow = z.object({ sid: z.string(), keycloak_sid: z.string() });

function sessionsOf(target: IdentityApp, user: TestUser) {
  return target.database.rows(
    SessionRow,
    `SELECT sid, sess ->> 'keycloakSessionId' AS keycloak_sid FROM sessions WHERE sess ->> 'userId' = $1`,
    [user.id],
  );
}

const me = async (target: IdentityApp, browser: Browser) =>
  (await browser.get(`${target.publicUrl}/api/v1/me`, { accept: 'application/json' })).status;

// The benchmark measures how soon (npm run bench).
describe('sessions and running work end', () => {
  it('when the user is disabled', async () => {
    const { user, browser, work } = await signInAndWork(app);
    await (await adminClient()).users.update({ id: user.id }, { enabled: false });
    await expectEndOf(app, user, work);
    // After the user is enabled again, a new sign-in is needed.
    await (await adminClient()).users.update({ id: user.id }, { enabled: true });
    expect(await me(app, browser)).toBe(401);
  });

  it('when the user is disabled and has no active work', async () => {
    const user = await createUser();
    await signIn(createBrowser(), app.publicUrl, user);
    await (await adminClient()).users.update({ id: user.id }, { enabled: false });
    await until(async () => (await sessionsOf(app, user)).length === 0);
  });

  it('when the user is deleted', async () => {
    const { user, browser, work } = await signInAndWork(app);
    await (await adminClient()).users.del({ id: user.id });
    await expectEndOf(app, user, work);
    expect(await me(app, browser)).toBe(401);
  });

  it('when an administrator signs the user out, by back-channel before the administrator gets a response', async () => {
    const { user, browser, work } = await signInAndWork(app);
    await (await adminClient()).users.logout({ id: user.id });
    expect(await me(app, browser)).toBe(401);
    await expectEndOf(app, user, work);
  });

  it('when an administrator signs the user out and the back-channel does not work', async () => {
    const { user, browser, work } = await signInAndWork(unreachable);
    await (await adminClient()).users.logout({ id: user.id });
    await expectEndOf(unreachable, user, work);
    expect(await me(unreachable, browser)).toBe(401);
  });

  it('when an administrator ends that one session and the back-channel does not work', async () => {
    const { user, work } = await signInAndWork(unreachable);
    const [row] = await sessionsOf(unreachable, user);
    const admin = await adminClient();
    await admin.realms.deleteSession({
      realm: stack.keycloak.realm,
      session: row?.keycloak_sid ?? '',
      isOffline: false,
    });
    await expectEndOf(unreachable, user, work);
  });

  it('when the user ends the session in the account pages and the back-channel does not work', async () => {
    const { user, work } = await signInAndWork(unreachable);
    const [row] = await sessionsOf(unreachable, user);
    await endInAccountPages(user, row?.keycloak_sid ?? '');
    await expectEndOf(unreachable, user, work);
  });

  it('when another instance ended the session', async () => {
    const { user, browser, work } = await signInAndWork(app);
    await using other = await startIdentityApp({ sharedWith: app, watch: false });
    const answer = await browser.post(`${other.publicUrl}/auth/logout`, {});
    expect(answer.status).toBe(303);
    await expectEndOf(app, user, work);
  });

  it('while those of other users continue', async () => {
    const staying = await signInAndWork(unreachable);
    const leaving = await signInAndWork(unreachable);
    await (await adminClient()).users.logout({ id: leaving.user.id });
    await expectEndOf(unreachable, leaving.user, leaving.work);
    expect(await me(unreachable, staying.browser)).toBe(200);
    expect(unreachable.identity.activeWork.userIds()).toContain(staying.user.id);
    await staying.browser.post(`${unreachable.publicUrl}/auth/logout`, {});
    expect(await staying.work.text).toContain('data: signed_out');
  });
});

describe('after an administrator signed a user out', () => {
  it('the next sign-in stays valid, even if the event is read again', async () => {
    const { user, browser, work } = await signInAndWork(unreachable);
    await (await adminClient()).users.logout({ id: user.id });
    await expectEndOf(unreachable, user, work);
    // Tokens have whole seconds: a sign-in in the same second as the logout counts as before it.
    await until(async () => (await signIn(browser, unreachable.publicUrl, user)).status === 303);
    // Another instance starts by reading the last events again.
    await using another = await startIdentityApp({ sharedWith: unreachable });
    expect(await me(another, browser)).toBe(200);
    expect(await me(unreachable, browser)).toBe(200);
  });
});

describe('events that happened while the app was down', () => {
  it('are applied after it has started again', async () => {
    await using first = await startIdentityApp();
    await breakBackchannel(first);
    const [gone, stays] = [await signInAndWork(first), await signInAndWork(first)];
    await first.identity.stop();
    await (await adminClient()).users.logout({ id: gone.user.id });
    await using second = await startIdentityApp({ sharedWith: first });
    expect(await sessionsOf(second, gone.user)).toHaveLength(0);
    expect(await sessionsOf(second, stays.user)).toHaveLength(1);
  });
});

describe('a change of the tier', () => {
  it('takes effect at the next poll of events, before the cached user expires after 10 s', async () => {
    const user = await createUser({ tier: 'free' });
    const browser = createBrowser();
    await signIn(browser, app.publicUrl, user);
    const tier = async () => {
      const answer = await browser.get(`${app.publicUrl}/api/v1/me`);
      return z.object({ tier: z.string() }).parse(answer.json()).tier;
    };
    expect(await tier()).toBe('free');
    const admin = await adminClient();
    const now = await admin.users.findOne({ id: user.id });
    await admin.users.update(
      { id: user.id },
      { ...now, attributes: { ...now?.attributes, subscription_tier: ['professional'] } },
    );
    await until(async () => (await tier()) === 'professional', Boolean, 6_000);
  });
});

/** Makes the requests of the account pages when a user signs out a device. */
async function endInAccountPages(user: TestUser, keycloakSessionId: string): Promise<void> {
  const clientId = `pages-${randomBytes(6).toString('hex')}`;
  const admin = await adminClient();
  await admin.clients.create({
    clientId,
    publicClient: true,
    directAccessGrantsEnabled: true,
    fullScopeAllowed: true,
  });
  const realm = `${stack.keycloak.url}/realms/${stack.keycloak.realm}`;
  const { body } = await request(`${realm}/protocol/openid-connect/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({
      grant_type: 'password',
      scope: 'openid',
      client_id: clientId,
      username: user.username,
      password: user.password,
    }).toString(),
  });
  const { access_token } = z.object({ access_token: z.string() }).parse(await body.json());
  const answer = await request(`${realm}/account/sessions/${keycloakSessionId}`, {
    method: 'DELETE',
    headers: { authorization: `Bearer ${access_token}`, accept: 'application/json' },
  });
  await answer.body.dump();
  expect(answer.statusCode).toBe(204);
}
