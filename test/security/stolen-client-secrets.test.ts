import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { adminUrl, requestTokens, callKeycloak, serviceToken } from '../support/keycloak-tokens.ts';
import { adminClient } from '../support/stack.ts';
import { LAYOUTS } from './installation.ts';
import { expectAllOf, expectNothingOf, expectNoUsableKey } from './stolen-data.ts';
import { createScenario, listKeys, statusOf, type UserWithKey, type Scenario } from './scenario.ts';

const LABEL = 'a label of the owner';

/** Calls that change users. Each is tried with a client's own token. */
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
  ['create a user', 'POST', () => '/users', { username: 'made-by-a-client' }],
];
/** Calls that no client may make in any realm. */
const FORBIDDEN_CALLS: typeof USER_CHANGES = [
  ['sign in as a user', 'POST', (id) => `/users/${id}/impersonation`, {}],
  ['read clients and their secrets', 'GET', () => '/clients', undefined],
  ['export the realm', 'POST', () => '/partial-export?exportClients=true', undefined],
  ['change the realm', 'PUT', () => '', { adminEventsEnabled: false }],
  ['change what users may see', 'PUT', () => '/users/profile', { unmanagedAttributePolicy: 'ENABLED' }],
];

describe.each(LAYOUTS)('stolen secrets with %s', (layout) => {
  const isOneRealm = layout === 'one realm for users and keys';
  let scenario: Scenario;
  let owner: UserWithKey;
  /** The Fernet token of the owner's key, and the mask that is shown. */
  let token: string;
  let mask: string;
  beforeAll(async () => {
    scenario = await createScenario(layout);
    owner = await scenario.createUserWithKey({ label: LABEL });
    ({ token, mask } = JSON.parse(owner.value) as { token: string; mask: string });
  }, 120_000);
  afterAll(() => scenario.stop());

  const userNow = async () => (await adminClient(scenario.realm)).users.findOne({ id: owner.user.id });
  /** The call is refused and changes nothing. */
  async function expectRefused(
    accessToken: string,
    realm: string,
    [, method, path, json]: (typeof USER_CHANGES)[number],
    id: string = owner.user.id,
  ): Promise<void> {
    const before = await userNow();
    const { status, text } = await callKeycloak(accessToken, method, adminUrl(realm, path(id)), json);
    expect([401, 403]).toContain(status);
    expectNothingOf(text, [token, mask]);
    expect(await userNow()).toEqual(before);
  }

  describe('the secret of the service client', () => {
    let accessToken: string;
    beforeAll(async () => {
      accessToken = await serviceToken(scenario.service, scenario.realm);
    });
    const read = async (path: string, realm = scenario.realm) =>
      (await callKeycloak(accessToken, 'GET', adminUrl(realm, path))).text;

    it('reads name, e-mail address, tier and sign-in addresses of all users', async () => {
      const { id, username, email } = owner.user;
      const user: unknown = JSON.parse(await read(`/users/${id}`));
      expect(user).toMatchObject({ username, email, attributes: { subscription_tier: ['starter'] } });
      expect(JSON.parse(await read(`/events?user=${id}&type=LOGIN`))).toMatchObject([
        { userId: id, ipAddress: expect.stringMatching(/./) },
      ]);
    });

    it(`reads ${isOneRealm ? 'encrypted keys with label and last characters' : 'no part of keys'}, and no usable key`, async () => {
      const stolen =
        (await read(`/users/${owner.user.id}`)) + (await read('/users?briefRepresentation=false'));
      expectNoUsableKey(stolen, [owner.key]);
      if (isOneRealm) expectAllOf(stolen, [token, mask, LABEL]);
      else expectNothingOf(stolen, [token, mask, LABEL, 'byok']);
    });

    it.each([...USER_CHANGES, ...FORBIDDEN_CALLS])('may not %s', async (...call) => {
      await expectRefused(accessToken, scenario.realm, call);
    });

    if (!isOneRealm) {
      it('may not read the vault realm', async () => {
        const { id } = await scenario.readRecord(owner.user);
        for (const path of ['/users', `/users/${id}`, '/users/profile', '/admin-events'])
          await expectRefused(accessToken, scenario.vaultRealm, ['read', 'GET', () => path, undefined]);
      });
    }

    it('is refused by the app', async () => {
      const headers = { authorization: `Bearer ${accessToken}` };
      expect(await statusOf(scenario.app.call('/api/v1/byok/keys', { headers }))).toBe(401);
    });

    it('cannot be exchanged for a token of a user', async () => {
      const { id, secret } = scenario.service;
      await expectNoExchange(scenario.realm, { client_id: id, client_secret: secret }, accessToken);
    });
  });

  describe('the secret of the vault client', () => {
    let accessToken: string;
    beforeAll(async () => {
      accessToken = await serviceToken(scenario.vault, scenario.vaultRealm);
    });

    it('reads all records with owner, label and last characters, and no usable key', async () => {
      const { text } = await callKeycloak(
        accessToken,
        'GET',
        adminUrl(scenario.vaultRealm, '/users?briefRepresentation=false&max=10000'),
      );
      expectNoUsableKey(text, [owner.key]);
      expectAllOf(text, [owner.user.username, token, mask, LABEL]);
    });

    it.each(FORBIDDEN_CALLS)('may not %s in the vault realm', async (...call) => {
      const { id } = await scenario.readRecord(owner.user);
      await expectRefused(accessToken, scenario.vaultRealm, call, id);
    });

    it('may not grant an administrator’s role', async () => {
      const admin = await adminClient(scenario.vaultRealm);
      const [management] = await admin.clients.find({ clientId: 'realm-management' });
      const clientId = management?.id ?? '';
      const role = await admin.clients.findRole({ id: clientId, roleName: 'realm-admin' });
      const { id } = await scenario.readRecord(owner.user);
      const path = `/users/${id}/role-mappings/clients/${clientId}`;
      await expectRefused(accessToken, scenario.vaultRealm, ['give', 'POST', () => path, [role]]);
    });

    it('is refused by the app', async () => {
      const headers = { authorization: `Bearer ${accessToken}` };
      expect(await statusOf(scenario.app.call('/api/v1/byok/keys', { headers }))).toBe(401);
    });

    it('cannot be exchanged for a token of a user', async () => {
      const { id, secret } = scenario.vault;
      await expectNoExchange(scenario.vaultRealm, { client_id: id, client_secret: secret }, accessToken);
    });

    if (isOneRealm) {
      it('takes over accounts: sets a password and a tier, signs in and uses the key, and never reads it', async () => {
        const victim = await scenario.createUserWithKey();
        const password = 'chosen-by-the-thief';
        const path = `/users/${victim.user.id}`;
        const call = (method: string, below: string, json: unknown) =>
          callKeycloak(accessToken, method, adminUrl(scenario.realm, path + below), json);
        expect((await call('PUT', '/reset-password', { type: 'password', value: password })).status).toBe(
          204,
        );
        const session = await scenario.app.signIn({ ...victim.user, password });
        expect(await statusOf(scenario.chat(session, 'openai/gpt-4o'))).toBe(200);
        expectNoUsableKey(JSON.stringify(await listKeys(scenario.app, session)), [victim.key]);
        const other = { provider: 'custom', key: '', key_id: victim.keyId, endpoint: scenario.upstream.url };
        const moved = await scenario.app.call('/api/v1/byok/keys/add', {
          method: 'POST',
          session,
          json: other,
        });
        expect(moved.status).toBeGreaterThanOrEqual(400);
        const url = adminUrl(scenario.realm, path);
        const user = JSON.parse((await callKeycloak(accessToken, 'GET', url)).text) as Record<
          string,
          unknown
        >;
        const attributes = { ...(user['attributes'] as object), subscription_tier: ['enterprise'] };
        expect((await call('PUT', '', { ...user, attributes })).status).toBe(204);
      });

      it('sets the password of an administrator of that realm', async () => {
        const administrator = await scenario.createUser('free');
        const admin = await adminClient(scenario.realm);
        const [management] = await admin.clients.find({ clientId: 'realm-management' });
        const clientUniqueId = management?.id ?? '';
        const role = await admin.clients.findRole({ id: clientUniqueId, roleName: 'realm-admin' });
        const roles = [{ id: role?.id ?? '', name: role?.name ?? '' }];
        await admin.users.addClientRoleMappings({ id: administrator.id, clientUniqueId, roles });
        const url = adminUrl(scenario.realm, `/users/${administrator.id}/reset-password`);
        const json = { type: 'password', value: 'chosen-by-the-thief' };
        expect((await callKeycloak(accessToken, 'PUT', url, json)).status).toBe(204);
      });
    } else {
      it.each([
        ['read a user', 'GET', (id: string) => `/users/${id}`, undefined] as (typeof USER_CHANGES)[number],
        ['list users', 'GET', () => '/users', undefined] as (typeof USER_CHANGES)[number],
        ...USER_CHANGES,
        ...FORBIDDEN_CALLS,
      ])('may not %s in the user realm', async (...call) => {
        await expectRefused(accessToken, scenario.realm, call);
      });

      it('creates users in the vault realm, who cannot sign in to the app', async () => {
        const own = { username: `thief-${owner.user.id}`, password: 'of-the-thief-himself' };
        const made = await callKeycloak(accessToken, 'POST', adminUrl(scenario.vaultRealm, '/users'), {
          username: own.username,
          enabled: true,
          credentials: [{ type: 'password', value: own.password, temporary: false }],
        });
        expect(made.status).toBe(201);
        await expect(scenario.app.signIn({ id: '', email: '', ...own })).rejects.toThrow(
          'refused the sign-in',
        );
        const admin = await adminClient(scenario.vaultRealm);
        const [found] = await admin.users.find({ username: own.username, exact: true });
        await admin.users.del({ id: found?.id ?? '' });
      });
    }
  });

  describe('the secret of the web client', () => {
    const own = () => {
      const { id, secret } = scenario.app.config.keycloak.web;
      return { client_id: id, client_secret: secret };
    };

    it.each([
      ['a service account', () => ({ grant_type: 'client_credentials' })],
      [
        'a token for a password',
        () => ({
          grant_type: 'password',
          username: owner.user.username,
          password: owner.user.password,
        }),
      ],
      [
        'a token from a device sign-in',
        () => ({ grant_type: 'urn:ietf:params:oauth:grant-type:device_code', device_code: 'x' }),
      ],
      [
        'a token from a back-channel sign-in',
        () => ({ grant_type: 'urn:openid:params:grant-type:ciba', auth_req_id: 'x' }),
      ],
    ])('does not give %s', async (_name, form) => {
      const { status, body } = await requestTokens({ ...own(), ...form() }, scenario.realm);
      expect([400, 401]).toContain(status);
      expect(body).toMatchObject({ error: expect.stringMatching(/^(unauthorized_client|invalid_grant)$/) });
    });

    it('is refused by the admin API of both realms, and by the app', async () => {
      const { client_id, client_secret } = own();
      const basic = `Basic ${Buffer.from(`${client_id}:${client_secret}`).toString('base64')}`;
      for (const realm of [scenario.realm, scenario.vaultRealm])
        expect((await fetch(adminUrl(realm, '/users'), { headers: { authorization: basic } })).status).toBe(
          401,
        );
      const headers = { authorization: basic };
      expect(await statusOf(scenario.app.call('/api/v1/byok/keys', { headers }))).toBe(401);
    });

    it('cannot redirect a sign-in to another address', async () => {
      const { client_id } = own();
      const query = new URLSearchParams({
        client_id,
        redirect_uri: 'https://thief.example/callback',
        response_type: 'code',
        scope: 'openid',
        code_challenge_method: 'S256',
        code_challenge: 'x'.repeat(43),
      });
      const base = `${scenario.app.config.keycloak.url}/realms/${scenario.realm}/protocol/openid-connect`;
      const response = await fetch(`${base}/auth?${query.toString()}`, { redirect: 'manual' });
      expect([response.status, response.headers.get('location')]).toEqual([400, null]);
    });
  });
});

/** No exchange turns a client’s own token into a token of a user. */
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
