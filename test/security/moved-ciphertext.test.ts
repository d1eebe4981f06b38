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
  let scene: Scenario;
  beforeAll(async () => {
    scene = await createScenario(layout);
  }, 120_000);
  afterAll(() => scene.stop());
  afterEach(() => {
    scene.upstream.reset();
  });

  /** Another process on the same realms, with a database of its own, as after a theft of the realms. */
  function startElsewhere(encryptionKey: string, shared?: TestApp): Promise<TestApp> {
    const { realm, vaultRealm, service, vault, upstream, app } = scene;
    return startApp({
      ...(shared === undefined ? {} : { shared }),
      env: {
        ...upstreamSettings(upstream.url),
        ENCRYPTION_KEY: encryptionKey,
        KEYCLOAK_REALM: realm,
        KEYCLOAK_VAULT_REALM: vaultRealm,
        KEYCLOAK_SERVICE_CLIENT_SECRET: service.secret,
        KEYCLOAK_VAULT_CLIENT_SECRET: vault.secret,
        // In one realm both are the same web client, see signInAt.
        ...(realm === vaultRealm
          ? {
              KEYCLOAK_WEB_CLIENT_ID: app.config.keycloak.web.id,
              KEYCLOAK_WEB_CLIENT_SECRET: app.config.keycloak.web.secret,
            }
          : {}),
      },
    });
  }

  describe('a ciphertext that an administrator', () => {
    it('copies to another person is of no use there, and all is as before when that is undone', async () => {
      const [owner, other] = [await scene.createUserWithKey(), await scene.createUserWithKey()];
      await scene.editRecord(other.user, { byok_openai: [owner.value] });
      await scene.expectUndecryptable({ session: other.session, keyId: owner.keyId }, 'openai/gpt-4o');
      expect((await scene.readRecord(other.user)).attributes['byok_openai']).toEqual([owner.value]);
      await scene.expectKeyUsed(owner);
      await scene.editRecord(other.user, { byok_openai: [other.value] });
      await scene.expectKeyUsed(other);
    });

    it('puts beside a person’s own key is passed over: the own key serves', async () => {
      const [owner, other] = [await scene.createUserWithKey(), await scene.createUserWithKey()];
      await scene.editRecord(other.user, { byok_openai: [owner.value, other.value] });
      for (let turn = 1; turn <= 3; turn += 1) {
        expect((await scene.chat(other.session, 'openai/gpt-4o')).status).toBe(200);
        expect((await scene.upstream.received(turn)).key).toBe(other.key);
      }
      await until(
        async () =>
          (await listKeys(scene.app, other.session)).find(({ id }) => id === owner.keyId)?.test_status,
        (status) => status === 'undecryptable',
      );
    });

    it('copies to another provider of the same person is of no use there, and stays in use where it was', async () => {
      const person = await scene.createUserWithKey();
      await scene.editRecord(person.user, { byok_openrouter: [person.value] });
      await scene.expectUndecryptable(person, 'openrouter/openai/gpt-4o');
      await scene.expectKeyUsed(person);
      expect((await scene.readRecord(person.user)).attributes).toMatchObject({
        byok_openai: [person.value],
        byok_openrouter: [person.value],
      });
    });

    it.each([
      ['edits', edited],
      ['cuts short', (value: string) => value.replace(/.{8}"}$/, '"}')],
      ['replaces by text', withMembers({ token: 'sk-of-the-admin' })],
      ['gives an endpoint', withMembers({ endpoint: 'http://127.0.0.1:9/v1' })],
      ['gives an expiry', withMembers({ expires_at: IN_A_YEAR })],
    ])('%s is not opened, and is back in use when that is undone', async (_name, change) => {
      const person = await scene.createUserWithKey();
      const changed = change(person.value);
      expect(changed).not.toBe(person.value);
      await scene.editRecord(person.user, { byok_openai: [changed] });
      await scene.expectUndecryptable(person, 'openai/gpt-4o');
      expect((await scene.readRecord(person.user)).attributes['byok_openai']).toEqual([changed]);
      await scene.editRecord(person.user, { byok_openai: [person.value] });
      await scene.expectKeyUsed(person);
    });

    it('gives another key’s id is not opened under that id, and the key itself still serves beside it', async () => {
      const person = await scene.createUserWithKey();
      const renamed = withMembers({ id: OTHER_ID })(person.value);
      await scene.editRecord(person.user, { byok_openai: [renamed] });
      await scene.expectUndecryptable({ ...person, keyId: OTHER_ID }, 'openai/gpt-4o');
      await scene.editRecord(person.user, { byok_openai: [renamed, person.value] });
      await scene.expectKeyUsed(person);
    });

    it('puts in the place of a newer key of the same person, by the newer one’s id, is not opened', async () => {
      const person = await scene.createUserWithKey();
      const second = await scene.storeKey(person, { key: openAiKey() });
      const { token } = JSON.parse(person.value) as { token: string };
      await scene.editRecord(person.user, { byok_openai: [withMembers({ token })(second.value)] });
      await scene.expectUndecryptable({ ...person, keyId: second.keyId }, 'openai/gpt-4o');
    });

    it('frees of its expiry, or gives a later one, is not opened: the sealed one holds', async () => {
      const person = await scene.createUserWithKey({ expires_at: TOMORROW });
      for (const expires_at of [null, IN_A_YEAR]) {
        await scene.editRecord(person.user, { byok_openai: [withMembers({ expires_at })(person.value)] });
        await scene.expectUndecryptable(person, 'openai/gpt-4o');
      }
      await scene.editRecord(person.user, { byok_openai: [person.value] });
      await scene.expectKeyUsed(person);
    });

    it('sends to another endpoint than the one that its owner named is not opened: neither hears of it', async () => {
      const { upstream } = scene;
      const person = await scene.createUserWithKey({ provider: 'custom', endpoint: upstream.url });
      const elsewhere = withMembers({ endpoint: upstream.url.replace('/v1', '/v2') })(person.value);
      await scene.editRecord(person.user, { byok_custom: [elsewhere] });
      await scene.expectUndecryptable(person, 'custom/gpt-4o');
      await scene.editRecord(person.user, { byok_custom: [person.value] });
      await scene.expectKeyUsed(person);
    });
  });

  describe('a key under an encryption key that the app does not have', () => {
    it('keeps a process that has another one from starting on the same database', async () => {
      await scene.createUserWithKey();
      await expect(startElsewhere(fernetKey(), scene.app)).rejects.toThrow(
        'ENCRYPTION_KEY does not fit the stored keys',
      );
    });

    it('is refused in another installation on the same realms, untouched, and serves where it belongs', async () => {
      const person = await scene.createUserWithKey();
      const before = await scene.readRecord(person.user);
      await using stranger = await startElsewhere(fernetKey());
      const session = await signInAt(stranger, person);
      await scene.expectUndecryptable({ session, keyId: person.keyId }, 'openai/gpt-4o', stranger);
      expect(await scene.readRecord(person.user)).toEqual(before);
      await scene.expectKeyUsed(person);
    });

    it('stays when another key is added beside it there', async () => {
      const person = await scene.createUserWithKey();
      await using stranger = await startElsewhere(fernetKey());
      const session = await signInAt(stranger, person);
      const added = openAiKey();
      const json = { provider: 'openai', key: added };
      const answer = await stranger.call('/api/v1/byok/keys/add', { method: 'POST', session, json });
      expect(answer.status).toBe(201);
      expect((await scene.chat(session, 'openai/gpt-4o', stranger)).status).toBe(200);
      expect((await scene.upstream.received(1)).key).toBe(added);
      expect((await scene.readRecord(person.user)).attributes['byok_openai']).toContain(person.value);
    });

    it('is opened by a process that lists it as an older one', async () => {
      const person = await scene.createUserWithKey();
      const ring = [fernetKey(), ...scene.app.config.encryptionKeys].join(',');
      await using rotated = await startElsewhere(ring, scene.app);
      expect((await scene.chat(person.session, 'openai/gpt-4o', rotated)).status).toBe(200);
      expect((await scene.upstream.received(1)).key).toBe(person.key);
    });
  });

  /** In one realm the web client's address is the first app's, so that the other app's must take its place. */
  async function signInAt(app: TestApp, person: { user: Parameters<TestApp['signIn']>[0] }): Promise<string> {
    await scene.pointWebClientAt(app);
    try {
      return await app.signIn(person.user);
    } finally {
      await scene.pointWebClientAt(scene.app);
    }
  }
});

describe('a vault record that names another owner', () => {
  let scene: Scenario;
  beforeAll(async () => {
    scene = await createScenario('a realm of its own for keys');
  }, 120_000);
  afterAll(() => scene.stop());

  it('is refused for list, route and chat, the system does not pay, and all is back when that is undone', async () => {
    const person = await scene.createUserWithKey();
    const { attributes } = await scene.readRecord(person.user);
    await scene.editRecord(person.user, { owner: ['user:somebody-else'] });
    for (const path of ['/api/v1/byok/keys', '/api/v1/byok/route?model=gpt-4o']) {
      const response = await scene.app.call(path, { session: person.session });
      expect([response.status, await response.json()]).toMatchObject([424, { code: 'key_undecryptable' }]);
    }
    for (const model of ['openai/gpt-4o', 'any/model']) {
      const response = await scene.chat(person.session, model);
      expect([response.status, await response.json()]).toMatchObject([
        424,
        { error: { code: 'key_undecryptable', skipped: [] } },
      ]);
      expect(response.headers.get('x-should-retry')).toBe('false');
    }
    expect(scene.upstream.requests).toHaveLength(0);
    expect(scene.app.events('key_undecryptable').at(-1)).toMatchObject({
      user: person.user.id,
      key_id: null,
    });
    await scene.editRecord(person.user, { owner: attributes['owner'] ?? [] });
    await scene.expectKeyUsed(person);
  });
});
