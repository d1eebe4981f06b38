import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { decryptSessionTokens } from '../../src/identity/session-tokens.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { fernetKey } from '../support/app.ts';
import {
  accountConsoleToken,
  adminUrl,
  callKeycloak,
  getTokens,
  type Tokens,
} from '../support/keycloak-tokens.ts';
import { adminClient, stack } from '../support/stack.ts';
import { LAYOUTS } from './installation.ts';
import { expectNothingOf } from './stolen-data.ts';
import { createScenario, type UserWithKey, type Scenario } from './scenario.ts';

const LABEL = 'a label of mine';

describe.each(LAYOUTS)('with %s', (layout) => {
  const isOneRealm = layout === 'one realm for users and keys';
  let scenario: Scenario;
  let owner: UserWithKey;
  /** The Fernet token of the stored value, and the mask that is shown. */
  let token: string;
  let mask: string;
  beforeAll(async () => {
    scenario = await createScenario(layout);
    owner = await scenario.createUserWithKey({ label: LABEL });
    ({ token, mask } = JSON.parse(owner.value) as { token: string; mask: string });
  }, 120_000);
  afterAll(() => scenario.stop());

  /** The text contains neither the key nor its token, mask or label. */
  function expectNothingOfKeys(text: string): void {
    expect(text).not.toBe('');
    expectNothingOf(text, [owner.key, mask, token, owner.value, 'gAAAAA', 'byok', LABEL]);
  }

  const base = () => `${stack.keycloak.url}/realms/${scenario.realm}`;
  const account = () => `${base()}/account/`;

  describe('an administrator of Keycloak', () => {
    it('sees the Fernet token in the record, and only the app’s encryption key decrypts it', async () => {
      const { attributes } = await scenario.readRecord(owner.user);
      expect(attributes).toEqual({
        ...(isOneRealm
          ? { subscription_tier: ['starter'] }
          : { owner: [`user:${owner.user.id}`], owner_name: [owner.user.username] }),
        byok_openai: [owner.value],
      });
      expectNothingOf(owner.value, [owner.key]);
      expect(token).toMatch(/^gAAAAA[\w-]+=*$/);
      const plaintext = createKeyring(scenario.app.config.encryptionKeys).decrypt(token) ?? '{}';
      expect(JSON.parse(plaintext)).toMatchObject({
        key: owner.key,
        owner: `user:${owner.user.id}`,
        provider: 'openai',
      });
      expect(createKeyring([fernetKey()]).decrypt(token)).toBeUndefined();
    });

    it('sees the Keycloak user unchanged, except for encrypted keys with one realm', async () => {
      const found = await (await adminClient(scenario.realm)).users.findOne({ id: owner.user.id });
      const { username, email } = owner.user;
      expect(found).toMatchObject({ username, email, firstName: 'Test', lastName: 'User', enabled: true });
      const { byok_openai: _keys, ...others } = (found?.attributes ?? {}) as Record<string, string[]>;
      expect(others).toEqual({ subscription_tier: ['starter'] });
      if (!isOneRealm) expectNothingOfKeys(JSON.stringify(found));
    });

    it('sees in the events that keys were written, and no part of a key', async () => {
      const { id } = await scenario.readRecord(owner.user);
      const admin = await adminClient(scenario.realm);
      const lists = [
        await admin.realms.findEvents({ realm: scenario.realm, user: owner.user.id }),
        await admin.realms.findAdminEvents({ realm: scenario.vaultRealm, resourcePath: `users/${id}` }),
      ];
      for (const events of lists) {
        expect(events.length).toBeGreaterThan(0);
        expectNothingOfKeys(JSON.stringify(events));
      }
    });
  });

  describe('a user', () => {
    it('sees no part of a key in the API of the account pages', async () => {
      const accessToken = await accountConsoleToken(owner.user, scenario.realm);
      const { status, text } = await callKeycloak(
        accessToken,
        'GET',
        `${account()}?userProfileMetadata=true`,
      );
      expect(status).toBe(200);
      // The complete profile was read: it shows the tier.
      expect(JSON.parse(text)).toMatchObject({
        username: owner.user.username,
        attributes: { subscription_tier: ['starter'] },
      });
      expectNothingOfKeys(text);
    });

    it.each([
      ['the tier', { subscription_tier: ['enterprise'] }],
      ['an empty tier', { subscription_tier: [] }],
      ['a key', { byok_openai: ['{"v":1}'] }],
      ['another provider’s key', { byok_anything: ['x'] }],
      ['organizations to administer', { organization_admin: ['demo'] }],
    ])('cannot write %s through that API', async (_name, change) => {
      const writer = await scenario.createUser();
      const accessToken = await accountConsoleToken(writer, scenario.realm);
      const own = JSON.parse((await callKeycloak(accessToken, 'GET', account())).text) as {
        attributes: Record<string, string[]>;
      };
      const write = (attributes: Record<string, string[]>, lastName: string) =>
        callKeycloak(accessToken, 'POST', account(), { ...own, lastName, attributes });
      await write({ ...own.attributes, ...change }, 'Tried');
      const admin = await adminClient(scenario.realm);
      expect((await admin.users.findOne({ id: writer.id }))?.attributes).toEqual({
        subscription_tier: ['starter'],
      });
      // The same call writes what users may change.
      expect((await write(own.attributes, 'Written')).status).toBe(204);
      expect(await admin.users.findOne({ id: writer.id })).toMatchObject({
        lastName: 'Written',
        attributes: { subscription_tier: ['starter'] },
      });
    });

    it('does not lose keys by saving the account pages', async () => {
      const writer = await scenario.createUserWithKey();
      const accessToken = await accountConsoleToken(writer.user, scenario.realm);
      const own = JSON.parse((await callKeycloak(accessToken, 'GET', account())).text) as object;
      const saved = await callKeycloak(accessToken, 'POST', account(), { ...own, lastName: 'Saved' });
      expect(saved.status).toBe(204);
      expect((await scenario.readRecord(writer.user)).attributes['byok_openai']).toEqual([writer.value]);
      await scenario.expectKeyUsed(writer);
    });

    it('is refused by the admin API', async () => {
      const accessToken = await accountConsoleToken(owner.user, scenario.realm);
      const { id } = await scenario.readRecord(owner.user);
      for (const url of [
        adminUrl(scenario.realm, `/users/${owner.user.id}`),
        adminUrl(scenario.vaultRealm, `/users/${id}`),
      ])
        expect([401, 403]).toContain((await callKeycloak(accessToken, 'GET', url)).status);
    });

    it('has tokens without keys or tier: ID token, access token and userinfo', async () => {
      const tokens = await tokensOfSession();
      const userinfo = await callKeycloak(
        tokens.access_token,
        'GET',
        `${base()}/protocol/openid-connect/userinfo`,
      );
      expect(userinfo.status).toBe(200);
      for (const text of [claimsOf(tokens.id_token), claimsOf(tokens.access_token), userinfo.text]) {
        expect(JSON.parse(text)).toMatchObject({ sub: owner.user.id });
        expectNothingOfKeys(text);
        expect(text).not.toContain('subscription_tier');
      }
    });

    it('cannot use the account API with the token that the app holds', async () => {
      const { access_token } = await tokensOfSession();
      expect([401, 403]).toContain((await callKeycloak(access_token, 'GET', account())).status);
    });

    if (!isOneRealm) {
      it('cannot sign in as a vault record: it is disabled and has no credentials', async () => {
        const admin = await adminClient(scenario.vaultRealm);
        const { id } = await scenario.readRecord(owner.user);
        expect(await admin.users.findOne({ id })).toMatchObject({ enabled: false });
        expect(await admin.users.getCredentials({ id })).toEqual([]);
      });
    }
  });

  /** The tokens of the user's session as the app holds them. The access token is issued for its refresh token. */
  async function tokensOfSession(): Promise<Tokens> {
    const { config, ownerDatabaseUrl } = scenario.app;
    const client = new pg.Client({ connectionString: ownerDatabaseUrl });
    await client.connect();
    const { rows } = await client.query<{
      sess: { userId: string; keycloakSessionId: string; tokens: string };
    }>(`SELECT sess FROM sessions WHERE sess ->> 'userId' = $1`, [owner.user.id]);
    await client.end();
    const [row] = rows;
    if (row === undefined) throw new Error('the user has no session');
    const held = decryptSessionTokens(createKeyring(config.encryptionKeys), row.sess, row.sess.tokens);
    if (held === undefined) throw new Error('the session’s tokens do not decrypt');
    const { web } = config.keycloak;
    const fresh = await getTokens(
      {
        grant_type: 'refresh_token',
        client_id: web.id,
        client_secret: web.secret,
        refresh_token: held.refreshToken,
      },
      scenario.realm,
    );
    return { ...fresh, id_token: held.idToken };
  }
});

function claimsOf(jwt: string | undefined): string {
  return Buffer.from(jwt?.split('.')[1] ?? '', 'base64url').toString();
}
