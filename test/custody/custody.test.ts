import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { openTokens } from '../../src/identity/session-tokens.ts';
import { createKeyring } from '../../src/lib/keyring.ts';
import { fernetKey, startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import {
  accountConsoleToken,
  adminUrl,
  askKeycloak,
  getTokens,
  type Tokens,
} from '../support/keycloak-tokens.ts';
import { adminClient, createUser, stack, type TestUser } from '../support/stack.ts';
import { readVaultRecord } from '../support/vault-record.ts';

const { keycloak } = stack;
const account = `${keycloak.url}/realms/${keycloak.realm}/account/`;

let app: TestApp;
let user: TestUser;
let session: string;
let key: string;
/** The stored value, and of it the Fernet token and what is shown in the key's place. */
let value: string;
let token: string;
let mask: string;

beforeAll(async () => {
  app = await startApp();
  user = await createUser({ tier: 'starter' });
  session = await app.signIn(user);
  key = openAiKey();
  await addKey(app, session, { provider: 'openai', key, label: 'a label of mine' });
  value = (await readVaultRecord(user)).attributes['byok_openai']?.[0] ?? '';
  ({ token, mask } = JSON.parse(value) as { token: string; mask: string });
});
afterAll(async () => {
  await app.stop();
});

/** Nothing of the key: neither itself nor what stands for it, sealed or shown. */
function expectNothingOfKeys(text: string): void {
  const parts = [key, mask, token, value, 'gAAAAA', 'byok', 'a label of mine'];
  expect(text).not.toBe('');
  for (const part of parts) expect(text).not.toContain(part);
}

describe('an administrator', () => {
  it('sees the Fernet token in the vault record, and only the app’s encryption key opens it', async () => {
    const { attributes } = await readVaultRecord(user);
    expect(attributes).toEqual({
      owner: [`user:${user.id}`],
      owner_name: [user.username],
      byok_openai: [value],
    });
    expect(value).not.toContain(key);
    expect(token).toMatch(/^gAAAAA[\w-]+=*$/);
    const sealed = createKeyring(app.config.encryptionKeys).open(token) ?? '{}';
    expect(JSON.parse(sealed)).toMatchObject({ key, owner: `user:${user.id}`, provider: 'openai' });
    expect(createKeyring([fernetKey()]).open(token)).toBeUndefined();
  });

  it('finds nothing of keys in the person’s own user', async () => {
    const admin = await adminClient();
    const found = await admin.users.findOne({ id: user.id });
    expect(found?.attributes).toEqual({ subscription_tier: ['starter'] });
    expectNothingOfKeys(JSON.stringify(found));
  });

  it('finds in the events that keys were written, and nothing of them', async () => {
    const { id } = await readVaultRecord(user);
    const admin = await adminClient();
    const lists = [
      await admin.realms.findEvents({ realm: keycloak.realm, user: user.id }),
      await admin.realms.findAdminEvents({ realm: keycloak.vaultRealm, resourcePath: `users/${id}` }),
    ];
    for (const events of lists) {
      expect(events.length).toBeGreaterThan(0);
      expectNothingOfKeys(JSON.stringify(events));
    }
  });
});

describe('the user', () => {
  it('sees nothing of keys in the account pages’ own API', async () => {
    const accessToken = await accountConsoleToken(user);
    const { status, text } = await askKeycloak(accessToken, 'GET', `${account}?userProfileMetadata=true`);
    expect(status).toBe(200);
    // The profile is the real one: it shows the tier.
    expect(JSON.parse(text)).toMatchObject({
      username: user.username,
      attributes: { subscription_tier: ['starter'] },
    });
    expectNothingOfKeys(text);
  });

  it.each([
    ['the tier', { subscription_tier: ['enterprise'] }],
    ['the tier away', { subscription_tier: [] }],
    ['a key', { byok_openai: ['{"v":1}'] }],
    ['another provider’s key', { byok_anything: ['x'] }],
    ['organizations to administer', { organization_admin: ['demo'] }],
  ])('cannot write %s through it', async (_name, change) => {
    const writer = await createUser({ tier: 'starter' });
    const accessToken = await accountConsoleToken(writer);
    const own = JSON.parse((await askKeycloak(accessToken, 'GET', account)).text) as {
      attributes: Record<string, string[]>;
    };
    const write = (attributes: Record<string, string[]>, lastName: string) =>
      askKeycloak(accessToken, 'POST', account, { ...own, lastName, attributes });
    await write({ ...own.attributes, ...change }, 'Tried');
    const admin = await adminClient();
    expect((await admin.users.findOne({ id: writer.id }))?.attributes).toEqual({
      subscription_tier: ['starter'],
    });
    // The same call writes what is the user's own to write.
    expect((await write(own.attributes, 'Written')).status).toBe(204);
    expect(await admin.users.findOne({ id: writer.id })).toMatchObject({
      lastName: 'Written',
      attributes: { subscription_tier: ['starter'] },
    });
  });

  it('may use no part of the admin interface', async () => {
    const accessToken = await accountConsoleToken(user);
    const { id } = await readVaultRecord(user);
    for (const url of [
      adminUrl(keycloak.realm, `/users/${user.id}`),
      adminUrl(keycloak.vaultRealm, `/users/${id}`),
    ])
      expect([401, 403]).toContain((await askKeycloak(accessToken, 'GET', url)).status);
  });

  it('has tokens that say nothing of keys or tier: ID and access token, userinfo', async () => {
    const tokens = await tokensOfSession();
    const userinfo = await askKeycloak(
      tokens.access_token,
      'GET',
      `${keycloak.url}/realms/${keycloak.realm}/protocol/openid-connect/userinfo`,
    );
    expect(userinfo.status).toBe(200);
    for (const text of [claimsOf(tokens.id_token), claimsOf(tokens.access_token), userinfo.text]) {
      expect(JSON.parse(text)).toMatchObject({ sub: user.id });
      expectNothingOfKeys(text);
      expect(text).not.toContain('subscription_tier');
    }
  });

  it('cannot open the account API with the token that the app holds', async () => {
    const { access_token } = await tokensOfSession();
    expect([401, 403]).toContain((await askKeycloak(access_token, 'GET', account)).status);
  });

  it('cannot sign in as a vault record, nor is there anything to sign in to', async () => {
    const admin = await adminClient(keycloak.vaultRealm);
    const { id } = await readVaultRecord(user);
    expect(await admin.users.findOne({ id })).toMatchObject({ enabled: false });
    expect(await admin.users.getCredentials({ id })).toEqual([]);
  });
});

/** The tokens of the user's real session, as the app holds them; the access token comes of its refresh token. */
async function tokensOfSession(): Promise<Tokens> {
  const client = new pg.Client({ connectionString: app.ownerDatabaseUrl });
  await client.connect();
  const { rows } = await client.query<{
    sess: { userId: string; keycloakSessionId: string; tokens: string };
  }>(`SELECT sess FROM sessions WHERE sess ->> 'userId' = $1`, [user.id]);
  await client.end();
  const [row] = rows;
  if (row === undefined) throw new Error('the user has no session');
  const held = openTokens(createKeyring(app.config.encryptionKeys), row.sess, row.sess.tokens);
  if (held === undefined) throw new Error('the session’s tokens do not open');
  const { web } = app.config.keycloak;
  const fresh = await getTokens({
    grant_type: 'refresh_token',
    client_id: web.id,
    client_secret: web.secret,
    refresh_token: held.refreshToken,
  });
  return { ...fresh, id_token: held.idToken };
}

function claimsOf(jwt: string | undefined): string {
  return Buffer.from(jwt?.split('.')[1] ?? '', 'base64url').toString();
}
