import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { fernetKey, startApp, type TestApp } from '../support/app.ts';
import { openAiKey } from '../support/key.ts';
import { until } from '../support/until.ts';
import { LAYOUTS } from './installation.ts';
import { createScenario, listKeys, upstreamSettings, type Scenario } from './scenario.ts';

/** Changes one character in the middle of the Fernet token. */
function edited(value: string): string {
  const stored = JSON.parse(value) as { token: string };
  const at = Math.floor(stored.token.length / 2);
  const other = stored.token[at] === 'A' ? 'B' : 'A';
  return JSON.stringify({ ...stored, token: stored.token.slice(0, at) + other + stored.token.slice(at + 1) });
}

/** Replaces members of a stored value, the token included. */
const withMembers = (change: Record<string, unknown>) => (value: string) =>
  JSON.stringify({ ...(JSON.parse(value) as object), ...change });

const TOMORROW = new Date(Date.now() + 86_400_000).toISOString();
const IN_A_YEAR = new Date(Date.now() + 365 * 86_400_000).toISOString();
const OTHER_ID = 'otherkey0001';

describe.each(LAYOUTS)('with %s', (layout) => {
  let scenario: Scenario;
  beforeAll(async () => {
    scenario = await createScenario(layout);
  }, 120_000);
  afterAll(() => scenario.stop());
  afterEach(() => {
    scenario.upstream.reset();
  });

  /** Another process on the same realms, with its own database unless `shared` is set, as after a theft of the realms. */
  function startOtherApp(encryptionKey: string, shared?: TestApp): Promise<TestApp> {
    const { realm, vaultRealm, service, vault, upstream, app } = scenario;
    return startApp({
      ...(shared === undefined ? {} : { shared }),
      env: {
        ...upstreamSettings(upstream.url),
        ENCRYPTION_KEY: encryptionKey,
        KEYCLOAK_REALM: realm,
        KEYCLOAK_VAULT_REALM: vaultRealm,
        KEYCLOAK_SERVICE_CLIENT_SECRET: service.secret,
        KEYCLOAK_VAULT_CLIENT_SECRET: vault.secret,
        // With one realm, both apps use the same web client: see signInAt.
        ...(realm === vaultRealm
          ? {
              KEYCLOAK_WEB_CLIENT_ID: app.config.keycloak.web.id,
              KEYCLOAK_WEB_CLIENT_SECRET: app.config.keycloak.web.secret,
            }
          : {}),
      },
    });
  }

  describe('after a change by an administrator of Keycloak,', () => {
    it('a ciphertext copied to another owner does not decrypt there, and the copy can be undone', async () => {
      const [owner, other] = [await scenario.createUserWithKey(), await scenario.createUserWithKey()];
      await scenario.editRecord(other.user, { byok_openai: [owner.value] });
      await scenario.expectUndecryptable({ session: other.session, keyId: owner.keyId }, 'openai/gpt-4o');
      expect((await scenario.readRecord(other.user)).attributes['byok_openai']).toEqual([owner.value]);
      await scenario.expectKeyUsed(owner);
      await scenario.editRecord(other.user, { byok_openai: [other.value] });
      await scenario.expectKeyUsed(other);
    });

    it('a ciphertext copied next to another owner’s key is skipped, and that owner’s key serves', async () => {
      const [owner, other] = [await scenario.createUserWithKey(), await scenario.createUserWithKey()];
      await scenario.editRecord(other.user, { byok_openai: [owner.value, other.value] });
      for (let count = 1; count <= 3; count += 1) {
        expect((await scenario.chat(other.session, 'openai/gpt-4o')).status).toBe(200);
        expect((await scenario.upstream.received(count)).key).toBe(other.key);
      }
      await until(
        async () =>
          (await listKeys(scenario.app, other.session)).find(({ id }) => id === owner.keyId)?.test_status,
        (status) => status === 'undecryptable',
      );
    });

    it('a ciphertext copied to another provider of the same owner does not decrypt there, and the original still serves', async () => {
      const owner = await scenario.createUserWithKey();
      await scenario.editRecord(owner.user, { byok_openrouter: [owner.value] });
      await scenario.expectUndecryptable(owner, 'openrouter/openai/gpt-4o');
      await scenario.expectKeyUsed(owner);
      expect((await scenario.readRecord(owner.user)).attributes).toMatchObject({
        byok_openai: [owner.value],
        byok_openrouter: [owner.value],
      });
    });

    it.each([
      ['edited', edited],
      ['cut short', (value: string) => value.replace(/.{8}"}$/, '"}')],
      ['replaced with text', withMembers({ token: 'sk-of-the-admin' })],
      ['given an endpoint', withMembers({ endpoint: 'http://127.0.0.1:9/v1' })],
      ['given an expiry', withMembers({ expires_at: IN_A_YEAR })],
    ])('a ciphertext %s does not decrypt, and the change can be undone', async (_name, change) => {
      const owner = await scenario.createUserWithKey();
      const changed = change(owner.value);
      expect(changed).not.toBe(owner.value);
      await scenario.editRecord(owner.user, { byok_openai: [changed] });
      await scenario.expectUndecryptable(owner, 'openai/gpt-4o');
      expect((await scenario.readRecord(owner.user)).attributes['byok_openai']).toEqual([changed]);
      await scenario.editRecord(owner.user, { byok_openai: [owner.value] });
      await scenario.expectKeyUsed(owner);
    });

    it('a ciphertext stored under another id does not decrypt there, and the original still serves', async () => {
      const owner = await scenario.createUserWithKey();
      const renamed = withMembers({ id: OTHER_ID })(owner.value);
      await scenario.editRecord(owner.user, { byok_openai: [renamed] });
      await scenario.expectUndecryptable({ ...owner, keyId: OTHER_ID }, 'openai/gpt-4o');
      await scenario.editRecord(owner.user, { byok_openai: [renamed, owner.value] });
      await scenario.expectKeyUsed(owner);
    });

    it('a ciphertext stored under the id of a newer key of the same owner does not decrypt', async () => {
      const owner = await scenario.createUserWithKey();
      const second = await scenario.storeKey(owner, { key: openAiKey() });
      const { token } = JSON.parse(owner.value) as { token: string };
      await scenario.editRecord(owner.user, { byok_openai: [withMembers({ token })(second.value)] });
      await scenario.expectUndecryptable({ ...owner, keyId: second.keyId }, 'openai/gpt-4o');
    });

    it('a ciphertext stored without expiry, or with a later one, does not decrypt: the encrypted expiry applies', async () => {
      const owner = await scenario.createUserWithKey({ expires_at: TOMORROW });
      for (const expires_at of [null, IN_A_YEAR]) {
        await scenario.editRecord(owner.user, { byok_openai: [withMembers({ expires_at })(owner.value)] });
        await scenario.expectUndecryptable(owner, 'openai/gpt-4o');
      }
      await scenario.editRecord(owner.user, { byok_openai: [owner.value] });
      await scenario.expectKeyUsed(owner);
    });

    it('a ciphertext stored with another endpoint does not decrypt, and neither endpoint is called', async () => {
      const { upstream } = scenario;
      const owner = await scenario.createUserWithKey({ provider: 'custom', endpoint: upstream.url });
      const moved = withMembers({ endpoint: upstream.url.replace('/v1', '/v2') })(owner.value);
      await scenario.editRecord(owner.user, { byok_custom: [moved] });
      await scenario.expectUndecryptable(owner, 'custom/gpt-4o');
      await scenario.editRecord(owner.user, { byok_custom: [owner.value] });
      await scenario.expectKeyUsed(owner);
    });
  });

  describe('with several encryption keys,', () => {
    it('a process whose encryption key decrypts no stored key does not start on the same database', async () => {
      await scenario.createUserWithKey();
      await expect(startOtherApp(fernetKey(), scenario.app)).rejects.toThrow(
        'ENCRYPTION_KEY does not fit the stored keys',
      );
    });

    it('a key of one installation is refused by another installation on the same realms, stays unchanged, and still serves the first one', async () => {
      const owner = await scenario.createUserWithKey();
      const before = await scenario.readRecord(owner.user);
      await using otherApp = await startOtherApp(fernetKey());
      const session = await signInAt(otherApp, owner);
      await scenario.expectUndecryptable({ session, keyId: owner.keyId }, 'openai/gpt-4o', otherApp);
      expect(await scenario.readRecord(owner.user)).toEqual(before);
      await scenario.expectKeyUsed(owner);
    });

    it('a key of one installation stays stored when the other installation adds a key', async () => {
      const owner = await scenario.createUserWithKey();
      await using otherApp = await startOtherApp(fernetKey());
      const session = await signInAt(otherApp, owner);
      const added = openAiKey();
      const json = { provider: 'openai', key: added };
      const answer = await otherApp.call('/api/v1/byok/keys/add', { method: 'POST', session, json });
      expect(answer.status).toBe(201);
      expect((await scenario.chat(session, 'openai/gpt-4o', otherApp)).status).toBe(200);
      expect((await scenario.upstream.received(1)).key).toBe(added);
      expect((await scenario.readRecord(owner.user)).attributes['byok_openai']).toContain(owner.value);
    });

    it('a key decrypts in a process that lists its encryption key as an older one', async () => {
      const owner = await scenario.createUserWithKey();
      const ring = [fernetKey(), ...scenario.app.config.encryptionKeys].join(',');
      await using rotated = await startOtherApp(ring, scenario.app);
      expect((await scenario.chat(owner.session, 'openai/gpt-4o', rotated)).status).toBe(200);
      expect((await scenario.upstream.received(1)).key).toBe(owner.key);
    });
  });

  /** With one realm, the web client has the first app's address and is changed to the other app's for the sign-in. */
  async function signInAt(app: TestApp, owner: { user: Parameters<TestApp['signIn']>[0] }): Promise<string> {
    await scenario.pointWebClientAt(app);
    try {
      return await app.signIn(owner.user);
    } finally {
      await scenario.pointWebClientAt(scenario.app);
    }
  }
});

describe('after an edit of the owner in a vault record,', () => {
  let scenario: Scenario;
  beforeAll(async () => {
    scenario = await createScenario('a separate realm for keys');
  }, 120_000);
  afterAll(() => scenario.stop());

  it('the record is refused for list, route and chat without use of the system default, until the owner is restored', async () => {
    const owner = await scenario.createUserWithKey();
    const { attributes } = await scenario.readRecord(owner.user);
    await scenario.editRecord(owner.user, { owner: ['user:another-user'] });
    for (const path of ['/api/v1/byok/keys', '/api/v1/byok/route?model=gpt-4o']) {
      const response = await scenario.app.call(path, { session: owner.session });
      expect([response.status, await response.json()]).toMatchObject([424, { code: 'key_undecryptable' }]);
    }
    for (const model of ['openai/gpt-4o', 'any/model']) {
      const response = await scenario.chat(owner.session, model);
      expect([response.status, await response.json()]).toMatchObject([
        424,
        { error: { code: 'key_undecryptable', skipped: [] } },
      ]);
      expect(response.headers.get('x-should-retry')).toBe('false');
    }
    expect(scenario.upstream.requests).toHaveLength(0);
    expect(scenario.app.events('key_undecryptable').at(-1)).toMatchObject({
      user: owner.user.id,
      key_id: null,
    });
    await scenario.editRecord(owner.user, { owner: attributes['owner'] ?? [] });
    await scenario.expectKeyUsed(owner);
  });
});
