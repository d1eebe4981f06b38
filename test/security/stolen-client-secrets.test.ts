import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { adminUrl, requestTokens, callKeycloak, serviceToken } from '../support/keycloak-tokens.ts';
import { adminClient } from '../support/stack.ts';
import { LAYOUTS } from './installation.ts';
import { expectAllOf, expectNothingOf, expectNoUsableKey } from './stolen-data.ts';
import { createScenario, listKeys, statusOf, type UserWithKey, type Scenario } from './scenario.ts';

const LABEL = 'a label of the owner';

/** What changes people; each is tried with a client's own token. */
const USER_CHANGES: [string, string, (id: string) => string, unknown][] = [
  [
    'change a user',
    'PUT',
    (id) => `/users/${id}`,
    { attributes: { subscription_tier: ['enterprise'], byok_openai: [] } },
  ],
  ['set a password', 'PUT', (id) => `/users/${id}/reset-password`, { type: 'password', value: 'x' }],
  ['end a user’s sessions', 'POST', (id) => `/users/${id}/logout`, {}],
  ['delete a user', 'DELETE', (id) => `/users/${id}`, undefined],
  ['make a user', 'POST', () => '/users', { username: 'made-by-a-client' }],
];
/** What nobody's client may do in any realm. */
const FORBIDDEN_CALLS: typeof USER_CHANGES = [
  ['sign in as a user', 'POST', (id) => `/users/${id}/impersonation`, {}],
  ['read clients and their secrets', 'GET', () => '/clients', undefined],
  ['export the realm', 'POST', () => '/partial-export?exportClients=true', undefined],
  ['change the realm', 'PUT', () => '', { adminEventsEnabled: false }],
  ['change what users may see', 'PUT', () => '/users/profile', { unmanagedAttributePolicy: 'ENABLED' }],
];

describe.each(LAYOUTS)('with %s, a thief', (layout) => {
  const isOneRealm = layout === 'one realm for people and keys';
  let scene: Scenario;
  /** Someone who has a key. */
  let person: UserWithKey;
  /** The Fernet token that holds it, and what is shown in its place. */
  let token: string;
  let mask: string;
  beforeAll(async () => {
    scene = await createScenario(layout);
    person = await scene.createUserWithKey({ label: LABEL });
    ({ token, mask } = JSON.parse(person.value) as { token: string; mask: string });
  }, 120_000);
  afterAll(() => scene.stop());

  const userNow = async () => (await adminClient(scene.realm)).users.findOne({ id: person.user.id });
  /** The call is refused, and changes nothing. */
  async function expectRefused(
    accessToken: string,
    realm: string,
    [, method, path, json]: (typeof USER_CHANGES)[number],
    id: string = person.user.id,
  ): Promise<void> {
    const before = await userNow();
    const { status, text } = await callKeycloak(accessToken, method, adminUrl(realm, path(id)), json);
    expect([401, 403]).toContain(status);
    expectNothingOf(text, [token, mask]);
    expect(await userNow()).toEqual(before);
  }

  describe('of the service client’s secret', () => {
    let accessToken: string;
    beforeAll(async () => {
      accessToken = await serviceToken(scene.service, scene.realm);
    });
    const read = async (path: string, realm = scene.realm) =>
      (await callKeycloak(accessToken, 'GET', adminUrl(realm, path))).text;

    it('reads who everybody is: name, e-mail address, tier, and from where they signed in', async () => {
      const { id, username, email } = person.user;
      const user: unknown = JSON.parse(await read(`/users/${id}`));
      expect(user).toMatchObject({ username, email, attributes: { subscription_tier: ['starter'] } });
      expect(JSON.parse(await read(`/events?user=${id}&type=LOGIN`))).toMatchObject([
        { userId: id, ipAddress: expect.stringMatching(/./) },
      ]);
    });

    it(`reads ${isOneRealm ? 'the sealed keys with label and last characters' : 'nothing of keys'}, and no key`, async () => {
      const loot =
        (await read(`/users/${person.user.id}`)) + (await read('/users?briefRepresentation=false'));
      expectNoUsableKey(loot, [person.key]);
      if (isOneRealm) expectAllOf(loot, [token, mask, LABEL]);
      else expectNothingOf(loot, [token, mask, LABEL, 'byok']);
    });

    it.each([...USER_CHANGES, ...FORBIDDEN_CALLS])('may not %s', async (...call) => {
      await expectRefused(accessToken, scene.realm, call);
    });

    if (!isOneRealm) {
      it('may not read the realm of the keys', async () => {
        const { id } = await scene.readRecord(person.user);
        for (const path of ['/users', `/users/${id}`, '/users/profile', '/admin-events'])
          await expectRefused(accessToken, scene.vaultRealm, ['read', 'GET', () => path, undefined]);
      });
    }

    it('gets nothing of the app with it', async () => {
      const headers = { authorization: `Bearer ${accessToken}` };
      expect(await statusOf(scene.app.call('/api/v1/byok/keys', { headers }))).toBe(401);
    });

    it('cannot trade it for a token of a person', async () => {
      const { id, secret } = scene.service;
      await expectNoExchange(scene.realm, { client_id: id, client_secret: secret }, accessToken);
    });
  });

  describe('of the vault client’s secret', () => {
    let accessToken: string;
    beforeAll(async () => {
      accessToken = await serviceToken(scene.vault, scene.vaultRealm);
    });

    it('reads all records, whose they are, with label and last characters, and no key', async () => {
      const { text } = await callKeycloak(
        accessToken,
        'GET',
        adminUrl(scene.vaultRealm, '/users?briefRepresentation=false&max=10000'),
      );
      expectNoUsableKey(text, [person.key]);
      expectAllOf(text, [person.user.username, token, mask, LABEL]);
    });

    it.each(FORBIDDEN_CALLS)('may not %s in the realm of the keys', async (...call) => {
      const { id } = await scene.readRecord(person.user);
      await expectRefused(accessToken, scene.vaultRealm, call, id);
    });

    it('may give nobody a role of an administrator', async () => {
      const admin = await adminClient(scene.vaultRealm);
      const [management] = await admin.clients.find({ clientId: 'realm-management' });
      const clientId = management?.id ?? '';
      const role = await admin.clients.findRole({ id: clientId, roleName: 'realm-admin' });
      const { id } = await scene.readRecord(person.user);
      const path = `/users/${id}/role-mappings/clients/${clientId}`;
      await expectRefused(accessToken, scene.vaultRealm, ['give', 'POST', () => path, [role]]);
    });

    it('gets nothing of the app with it', async () => {
      const headers = { authorization: `Bearer ${accessToken}` };
      expect(await statusOf(scene.app.call('/api/v1/byok/keys', { headers }))).toBe(401);
    });

    it('cannot trade it for a token of a person', async () => {
      const { id, secret } = scene.vault;
      await expectNoExchange(scene.vaultRealm, { client_id: id, client_secret: secret }, accessToken);
    });

    if (isOneRealm) {
      it('takes over accounts: sets a password and a tier, signs in, chats on the key, and never sees it', async () => {
        const victim = await scene.createUserWithKey();
        const password = 'chosen-by-the-thief';
        const path = `/users/${victim.user.id}`;
        const call = (method: string, below: string, json: unknown) =>
          callKeycloak(accessToken, method, adminUrl(scene.realm, path + below), json);
        expect((await call('PUT', '/reset-password', { type: 'password', value: password })).status).toBe(
          204,
        );
        const session = await scene.app.signIn({ ...victim.user, password });
        expect(await statusOf(scene.chat(session, 'openai/gpt-4o'))).toBe(200);
        expectNoUsableKey(JSON.stringify(await listKeys(scene.app, session)), [victim.key]);
        const elsewhere = { provider: 'custom', key: '', key_id: victim.keyId, endpoint: scene.upstream.url };
        const moved = await scene.app.call('/api/v1/byok/keys/add', {
          method: 'POST',
          session,
          json: elsewhere,
        });
        expect(moved.status).toBeGreaterThanOrEqual(400);
        const url = adminUrl(scene.realm, path);
        const user = JSON.parse((await callKeycloak(accessToken, 'GET', url)).text) as Record<
          string,
          unknown
        >;
        const attributes = { ...(user['attributes'] as object), subscription_tier: ['enterprise'] };
        expect((await call('PUT', '', { ...user, attributes })).status).toBe(204);
      });

      it('sets the password of an administrator of that realm, too', async () => {
        const administrator = await scene.createUser('free');
        const admin = await adminClient(scene.realm);
        const [management] = await admin.clients.find({ clientId: 'realm-management' });
        const clientUniqueId = management?.id ?? '';
        const role = await admin.clients.findRole({ id: clientUniqueId, roleName: 'realm-admin' });
        const roles = [{ id: role?.id ?? '', name: role?.name ?? '' }];
        await admin.users.addClientRoleMappings({ id: administrator.id, clientUniqueId, roles });
        const url = adminUrl(scene.realm, `/users/${administrator.id}/reset-password`);
        const json = { type: 'password', value: 'chosen-by-the-thief' };
        expect((await callKeycloak(accessToken, 'PUT', url, json)).status).toBe(204);
      });
    } else {
      it.each([
        ['read a user', 'GET', (id: string) => `/users/${id}`, undefined] as (typeof USER_CHANGES)[number],
        ['list users', 'GET', () => '/users', undefined] as (typeof USER_CHANGES)[number],
        ...USER_CHANGES,
        ...FORBIDDEN_CALLS,
      ])('may not %s in the realm of the people', async (...call) => {
        await expectRefused(accessToken, scene.realm, call);
      });

      it('makes users in the realm of the keys, whom the app does not let in', async () => {
        const own = { username: `thief-${person.user.id}`, password: 'of-the-thief-himself' };
        const made = await callKeycloak(accessToken, 'POST', adminUrl(scene.vaultRealm, '/users'), {
          username: own.username,
          enabled: true,
          credentials: [{ type: 'password', value: own.password, temporary: false }],
        });
        expect(made.status).toBe(201);
        await expect(scene.app.signIn({ id: '', email: '', ...own })).rejects.toThrow('refused the sign-in');
        const admin = await adminClient(scene.vaultRealm);
        const [found] = await admin.users.find({ username: own.username, exact: true });
        await admin.users.del({ id: found?.id ?? '' });
      });
    }
  });

  describe('of the web client’s secret', () => {
    const own = () => {
      const { id, secret } = scene.app.config.keycloak.web;
      return { client_id: id, client_secret: secret };
    };

    it.each([
      ['an account of its own', () => ({ grant_type: 'client_credentials' })],
      [
        'a token for a password',
        () => ({
          grant_type: 'password',
          username: person.user.username,
          password: person.user.password,
        }),
      ],
      [
        'a token from a device’s sign-in',
        () => ({ grant_type: 'urn:ietf:params:oauth:grant-type:device_code', device_code: 'x' }),
      ],
      [
        'a token from a back-channel sign-in',
        () => ({ grant_type: 'urn:openid:params:grant-type:ciba', auth_req_id: 'x' }),
      ],
    ])('has not %s', async (_name, form) => {
      const { status, body } = await requestTokens({ ...own(), ...form() }, scene.realm);
      expect([400, 401]).toContain(status);
      expect(body).toMatchObject({ error: expect.stringMatching(/^(unauthorized_client|invalid_grant)$/) });
    });

    it('is refused by the admin interface of both realms, and by the app', async () => {
      const { client_id, client_secret } = own();
      const basic = `Basic ${Buffer.from(`${client_id}:${client_secret}`).toString('base64')}`;
      for (const realm of [scene.realm, scene.vaultRealm])
        expect((await fetch(adminUrl(realm, '/users'), { headers: { authorization: basic } })).status).toBe(
          401,
        );
      const headers = { authorization: basic };
      expect(await statusOf(scene.app.call('/api/v1/byok/keys', { headers }))).toBe(401);
    });

    it('sends nobody’s sign-in to an address of the thief', async () => {
      const { client_id } = own();
      const query = new URLSearchParams({
        client_id,
        redirect_uri: 'https://thief.example/callback',
        response_type: 'code',
        scope: 'openid',
        code_challenge_method: 'S256',
        code_challenge: 'x'.repeat(43),
      });
      const base = `${scene.app.config.keycloak.url}/realms/${scene.realm}/protocol/openid-connect`;
      const response = await fetch(`${base}/auth?${query.toString()}`, { redirect: 'manual' });
      expect([response.status, response.headers.get('location')]).toEqual([400, null]);
    });
  });
});

/** A client’s own token becomes no token of a person, by any exchange. */
async function expectNoExchange(
  realm: string,
  client: { client_id: string; client_secret: string },
  subjectToken: string,
): Promise<void> {
  const { status, body } = await requestTokens(
    {
      ...client,
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: subjectToken,
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      requested_subject: 'admin',
    },
    realm,
  );
  expect(status).toBeGreaterThanOrEqual(400);
  expect(body).not.toHaveProperty('access_token');
}
