import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { adminUrl, askForTokens, askKeycloak, serviceToken } from '../support/keycloak-tokens.ts';
import { adminClient, createUser, stack, type TestUser } from '../support/stack.ts';
import { readVaultRecord } from '../support/vault-record.ts';

const { keycloak } = stack;

let app: TestApp;
/** Someone who has a key. */
let user: TestUser;
let key: string;
/** The Fernet token that holds it. */
let token: string;

beforeAll(async () => {
  app = await startApp();
  user = await createUser({ tier: 'starter' });
  key = openAiKey();
  await addKey(app, await app.signIn(user), { provider: 'openai', key });
  const [value = ''] = (await readVaultRecord(user)).attributes['byok_openai'] ?? [];
  ({ token } = JSON.parse(value) as { token: string });
});
afterAll(async () => {
  await app.stop();
});

describe('the service client', () => {
  let accessToken: string;
  beforeAll(async () => {
    accessToken = await serviceToken(keycloak.serviceClient, keycloak.realm);
  });

  it('reads a user with the tier, and nothing of keys', async () => {
    const { status, text } = await askKeycloak(
      accessToken,
      'GET',
      adminUrl(keycloak.realm, `/users/${user.id}`),
    );
    expect(status).toBe(200);
    expect(JSON.parse(text)).toMatchObject({ attributes: { subscription_tier: ['starter'] } });
    for (const part of [key, token, 'byok']) expect(text).not.toContain(part);
  });

  it.each([
    [
      'change a user',
      'PUT',
      (id: string) => `/users/${id}`,
      { attributes: { subscription_tier: ['enterprise'] } },
    ],
    [
      'set a password',
      'PUT',
      (id: string) => `/users/${id}/reset-password`,
      { type: 'password', value: 'x' },
    ],
    ['end a user’s sessions', 'POST', (id: string) => `/users/${id}/logout`, {}],
    ['delete a user', 'DELETE', (id: string) => `/users/${id}`, undefined],
    ['make a user', 'POST', () => '/users', { username: 'made-by-service' }],
    ['read clients and their secrets', 'GET', () => '/clients', undefined],
    ['change the realm', 'PUT', () => '', { adminEventsEnabled: false }],
  ])('may not %s', async (_name, method, path, json) => {
    const admin = await adminClient();
    const before = await admin.users.findOne({ id: user.id });
    const { status } = await askKeycloak(accessToken, method, adminUrl(keycloak.realm, path(user.id)), json);
    expect(status).toBe(403);
    expect(await admin.users.findOne({ id: user.id })).toEqual(before);
  });

  it('may not read the vault', async () => {
    const { id } = await readVaultRecord(user);
    for (const path of ['/users', `/users/${id}`, '/users/profile', '/admin-events']) {
      const { status, text } = await askKeycloak(accessToken, 'GET', adminUrl(keycloak.vaultRealm, path));
      expect([401, 403]).toContain(status);
      expect(text).not.toContain(token);
    }
  });
});

describe('the vault client', () => {
  let accessToken: string;
  beforeAll(async () => {
    accessToken = await serviceToken(keycloak.vaultClient, keycloak.vaultRealm);
  });

  it('reads a vault record, still sealed', async () => {
    const { id } = await readVaultRecord(user);
    const { status, text } = await askKeycloak(
      accessToken,
      'GET',
      adminUrl(keycloak.vaultRealm, `/users/${id}`),
    );
    expect(status).toBe(200);
    expect(text).toContain(token);
    expect(text).not.toContain(key);
  });

  it.each([
    ['read a user', 'GET', (id: string) => `/users/${id}`, undefined],
    ['list users', 'GET', () => '/users', undefined],
    [
      'change a user',
      'PUT',
      (id: string) => `/users/${id}`,
      { attributes: { subscription_tier: ['enterprise'] } },
    ],
    [
      'set a password',
      'PUT',
      (id: string) => `/users/${id}/reset-password`,
      { type: 'password', value: 'x' },
    ],
    ['make a user', 'POST', () => '/users', { username: 'made-by-vault' }],
  ])('may not %s in the realm of the people', async (_name, method, path, json) => {
    const admin = await adminClient();
    const before = await admin.users.findOne({ id: user.id });
    const { status } = await askKeycloak(accessToken, method, adminUrl(keycloak.realm, path(user.id)), json);
    expect([401, 403]).toContain(status);
    expect(await admin.users.findOne({ id: user.id })).toEqual(before);
  });

  it.each([
    ['read clients and their secrets', 'GET', '/clients', undefined],
    ['change the realm', 'PUT', '', { adminEventsEnabled: false }],
    ['change what users may see', 'PUT', '/users/profile', { unmanagedAttributePolicy: 'ENABLED' }],
  ])('may not %s in its own realm', async (_name, method, path, json) => {
    expect((await askKeycloak(accessToken, method, adminUrl(keycloak.vaultRealm, path), json)).status).toBe(
      403,
    );
  });
});

describe('the web client', () => {
  it.each([
    ['the realm’s', () => keycloak.webClient],
    ['this app’s', () => app.config.keycloak.web],
  ])('(%s) has no account of its own, and trades no password', async (_name, client) => {
    const { id, secret } = client();
    const own = { client_id: id, client_secret: secret };
    const { username, password } = user;
    for (const form of [
      { ...own, grant_type: 'client_credentials' },
      { ...own, grant_type: 'password', username, password },
    ])
      expect((await askForTokens(form)).body).toMatchObject({ error: 'unauthorized_client' });
  });
});
