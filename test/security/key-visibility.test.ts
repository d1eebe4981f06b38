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
  const isOneRealm = layout === 'one realm for people and keys';
  let scene: Scenario;
  let person: UserWithKey;
  /** Of the stored value the Fernet token, and what is shown in the key's place. */
  let token: string;
  let mask: string;
  beforeAll(async () => {
    scene = await createScenario(layout);
    person = await scene.createUserWithKey({ label: LABEL });
    ({ token, mask } = JSON.parse(person.value) as { token: string; mask: string });
  }, 120_000);
  afterAll(() => scene.stop());

  /** Nothing of the key: neither itself nor what stands for it, sealed or shown. */
  function expectNothingOfKeys(text: string): void {
    expect(text).not.toBe('');
    expectNothingOf(text, [person.key, mask, token, person.value, 'gAAAAA', 'byok', LABEL]);
  }

  const base = () => `${stack.keycloak.url}/realms/${scene.realm}`;
  const account = () => `${base()}/account/`;

  describe('an administrator', () => {
    it('sees the Fernet token in the record, and only the app’s encryption key opens it', async () => {
      const { attributes } = await scene.readRecord(person.user);
      expect(attributes).toEqual({
        ...(isOneRealm
          ? { subscription_tier: ['starter'] }
          : { owner: [`user:${person.user.id}`], owner_name: [person.user.username] }),
        byok_openai: [person.value],
      });
      expectNothingOf(person.value, [person.key]);
      expect(token).toMatch(/^gAAAAA[\w-]+=*$/);
      const sealed = createKeyring(scene.app.config.encryptionKeys).decrypt(token) ?? '{}';
      expect(JSON.parse(sealed)).toMatchObject({
        key: person.key,
        owner: `user:${person.user.id}`,
        provider: 'openai',
      });
      expect(createKeyring([fernetKey()]).decrypt(token)).toBeUndefined();
    });

    it('finds the person’s own user as it was but for the sealed keys, where they lie there', async () => {
      const found = await (await adminClient(scene.realm)).users.findOne({ id: person.user.id });
      const { username, email } = person.user;
      expect(found).toMatchObject({ username, email, firstName: 'Test', lastName: 'User', enabled: true });
      const { byok_openai: _keys, ...others } = (found?.attributes ?? {}) as Record<string, string[]>;
      expect(others).toEqual({ subscription_tier: ['starter'] });
      if (!isOneRealm) expectNothingOfKeys(JSON.stringify(found));
    });

    it('finds in the events that keys were written, and nothing of them', async () => {
      const { id } = await scene.readRecord(person.user);
      const admin = await adminClient(scene.realm);
      const lists = [
        await admin.realms.findEvents({ realm: scene.realm, user: person.user.id }),
        await admin.realms.findAdminEvents({ realm: scene.vaultRealm, resourcePath: `users/${id}` }),
      ];
      for (const events of lists) {
        expect(events.length).toBeGreaterThan(0);
        expectNothingOfKeys(JSON.stringify(events));
      }
    });
  });

  describe('the user', () => {
    it('sees nothing of keys in the account pages’ own API', async () => {
      const accessToken = await accountConsoleToken(person.user, scene.realm);
      const { status, text } = await callKeycloak(
        accessToken,
        'GET',
        `${account()}?userProfileMetadata=true`,
      );
      expect(status).toBe(200);
      // The profile is the real one: it shows the tier.
      expect(JSON.parse(text)).toMatchObject({
        username: person.user.username,
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
      const writer = await scene.createUser();
      const accessToken = await accountConsoleToken(writer, scene.realm);
      const own = JSON.parse((await callKeycloak(accessToken, 'GET', account())).text) as {
        attributes: Record<string, string[]>;
      };
      const write = (attributes: Record<string, string[]>, lastName: string) =>
        callKeycloak(accessToken, 'POST', account(), { ...own, lastName, attributes });
      await write({ ...own.attributes, ...change }, 'Tried');
      const admin = await adminClient(scene.realm);
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

    it('does not lose keys by saving the account pages', async () => {
      const writer = await scene.createUserWithKey();
      const accessToken = await accountConsoleToken(writer.user, scene.realm);
      const own = JSON.parse((await callKeycloak(accessToken, 'GET', account())).text) as object;
      const saved = await callKeycloak(accessToken, 'POST', account(), { ...own, lastName: 'Saved' });
      expect(saved.status).toBe(204);
      expect((await scene.readRecord(writer.user)).attributes['byok_openai']).toEqual([writer.value]);
      await scene.expectKeyUsed(writer);
    });

    it('may use no part of the admin interface', async () => {
      const accessToken = await accountConsoleToken(person.user, scene.realm);
      const { id } = await scene.readRecord(person.user);
      for (const url of [
        adminUrl(scene.realm, `/users/${person.user.id}`),
        adminUrl(scene.vaultRealm, `/users/${id}`),
      ])
        expect([401, 403]).toContain((await callKeycloak(accessToken, 'GET', url)).status);
    });

    it('has tokens that say nothing of keys or tier: ID and access token, userinfo', async () => {
      const tokens = await tokensOfSession();
      const userinfo = await callKeycloak(
        tokens.access_token,
        'GET',
        `${base()}/protocol/openid-connect/userinfo`,
      );
      expect(userinfo.status).toBe(200);
      for (const text of [claimsOf(tokens.id_token), claimsOf(tokens.access_token), userinfo.text]) {
        expect(JSON.parse(text)).toMatchObject({ sub: person.user.id });
        expectNothingOfKeys(text);
        expect(text).not.toContain('subscription_tier');
      }
    });

    it('cannot open the account API with the token that the app holds', async () => {
      const { access_token } = await tokensOfSession();
      expect([401, 403]).toContain((await callKeycloak(access_token, 'GET', account())).status);
    });

    if (!isOneRealm) {
      it('cannot sign in as a vault record, nor is there anything to sign in to', async () => {
        const admin = await adminClient(scene.vaultRealm);
        const { id } = await scene.readRecord(person.user);
        expect(await admin.users.findOne({ id })).toMatchObject({ enabled: false });
        expect(await admin.users.getCredentials({ id })).toEqual([]);
      });
    }
  });

  /** The tokens of the user's real session, as the app holds them; the access token comes of its refresh token. */
  async function tokensOfSession(): Promise<Tokens> {
    const { config, ownerDatabaseUrl } = scene.app;
    const client = new pg.Client({ connectionString: ownerDatabaseUrl });
    await client.connect();
    const { rows } = await client.query<{
      sess: { userId: string; keycloakSessionId: string; tokens: string };
    }>(`SELECT sess FROM sessions WHERE sess ->> 'userId' = $1`, [person.user.id]);
    await client.end();
    const [row] = rows;
    if (row === undefined) throw new Error('the user has no session');
    const held = decryptSessionTokens(createKeyring(config.encryptionKeys), row.sess, row.sess.tokens);
    if (held === undefined) throw new Error('the session’s tokens do not open');
    const { web } = config.keycloak;
    const fresh = await getTokens(
      {
        grant_type: 'refresh_token',
        client_id: web.id,
        client_secret: web.secret,
        refresh_token: held.refreshToken,
      },
      scene.realm,
    );
    return { ...fresh, id_token: held.idToken };
  }
});

function claimsOf(jwt: string | undefined): string {
  return Buffer.from(jwt?.split('.')[1] ?? '', 'base64url').toString();
}
