import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { fernetKey } from '../support/app.ts';
import { openAiKey } from '../support/key.ts';
import { adminUrl, callKeycloak, serviceToken } from '../support/keycloak-tokens.ts';
import { adminClient } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { LAYOUTS } from './installation.ts';
import {
  createScenario,
  listKeys,
  statusOf,
  SYSTEM_KEY,
  type UserWithKey,
  type Scenario,
} from './scenario.ts';

const Stored = z.looseObject({ attributes: z.record(z.string(), z.array(z.string())) });
const AuditTrail = z.object({ data: z.array(z.object({ action: z.string() })) });

/** What lies outside the token, with some of it replaced. */
const withMembers = (value: string, change: Record<string, unknown>) =>
  JSON.stringify({ ...(JSON.parse(value) as object), ...change });

describe.each(LAYOUTS)('with %s, a thief of the vault client’s secret', (layout) => {
  let scene: Scenario;
  beforeAll(async () => {
    scene = await createScenario(layout);
  }, 120_000);
  afterAll(() => scene.stop());
  afterEach(() => {
    scene.upstream.reset();
  });

  /** Puts other values in the place of a person's for OpenAI, with the vault client's own token. */
  async function write({ user }: Pick<UserWithKey, 'user'>, values: string[]): Promise<string> {
    const { id } = await scene.readRecord(user);
    const token = await serviceToken(scene.vault, scene.vaultRealm);
    const url = adminUrl(scene.vaultRealm, `/users/${id}`);
    const stored = Stored.parse(JSON.parse((await callKeycloak(token, 'GET', url)).text));
    const attributes = { ...stored.attributes, byok_openai: values };
    expect((await callKeycloak(token, 'PUT', url, { ...stored, attributes })).status).toBe(204);
    return id;
  }

  const chat = ({ session }: Pick<UserWithKey, 'session'>) => scene.chat(session, 'openai/gpt-4o');
  const shown = async ({ session, keyId }: UserWithKey) =>
    (await listKeys(scene.app, session)).find(({ id }) => id === keyId);

  it('puts back a key that its owner has replaced: it is used again, for that owner alone', async () => {
    const person = await scene.createUserWithKey();
    await scene.storeKey(person, { key: openAiKey(), key_id: person.keyId });
    await write(person, [person.value]);
    await scene.expectKeyUsed(person);
  });

  it('puts back a key that its owner has deleted: it is used again, and listed', async () => {
    const person = await scene.createUserWithKey();
    await scene.storeKey(person, { key: openAiKey() });
    const path = `/api/v1/byok/keys/openai?key_id=${person.keyId}`;
    expect(await statusOf(scene.app.call(path, { method: 'DELETE', session: person.session }))).toBe(200);
    await write(person, [person.value]);
    await scene.expectKeyUsed(person);
    expect(await shown(person)).toMatchObject({ id: person.keyId });
  });

  it('switches a key off: the chat is refused, and nobody else pays', async () => {
    const person = await scene.createUserWithKey();
    await write(person, [withMembers(person.value, { enabled: false })]);
    const response = await chat(person);
    expect([response.status, await response.json()]).toMatchObject([
      424,
      { error: { code: 'no_usable_key' } },
    ]);
    expect(scene.upstream.requests).toHaveLength(0);
  });

  it('switches on a key that its owner has switched off: it is used, by its owner alone', async () => {
    const person = await scene.createUserWithKey();
    const path = `/api/v1/byok/keys/openai/${person.keyId}`;
    const json = { enabled: false };
    expect(await statusOf(scene.app.call(path, { method: 'PATCH', session: person.session, json }))).toBe(
      200,
    );
    expect(await statusOf(chat(person))).toBe(424);
    await write(person, [withMembers(person.value, { enabled: true })]);
    await scene.expectKeyUsed(person);
  });

  it('changes the label and the last characters that are shown; the key is the same', async () => {
    const person = await scene.createUserWithKey();
    await write(person, [withMembers(person.value, { label: 'of the thief', mask: 'sk-…9999' })]);
    expect(await shown(person)).toMatchObject({ label: 'of the thief', key_preview: 'sk-…9999' });
    await scene.expectKeyUsed(person);
  });

  it('plants no key of his own: sealed under another encryption key it is not opened, and nobody pays', async () => {
    const person = await scene.createUserWithKey();
    const sealed = {
      ...{ v: 1, kind: 'provider_key', owner: `user:${person.user.id}`, provider: 'openai' },
      ...{ id: person.keyId, key: openAiKey(), endpoint: null, expires_at: null },
    };
    const token = createKeyring([fernetKey()]).encrypt(JSON.stringify(sealed));
    await write(person, [withMembers(person.value, { token })]);
    await scene.expectUndecryptable(person, 'openai/gpt-4o');
  });

  it('plants no text: a key that is not sealed is no key, and nobody pays', async () => {
    const person = await scene.createUserWithKey();
    await write(person, ['sk-in-the-clear-by-the-hand-of-the-thief']);
    const response = await chat(person);
    expect([response.status, await response.json()]).toMatchObject([
      424,
      { error: { code: 'key_undecryptable' } },
    ]);
    expect(scene.upstream.requests).toHaveLength(0);
  });

  it('deletes keys: the system pays and says so; the events of Keycloak tell of it, the audit trail does not', async () => {
    const person = await scene.createUserWithKey();
    const recordId = await write(person, []);
    await expectSystemPays(person);
    const admin = await adminClient(scene.vaultRealm);
    const events = await admin.realms.findAdminEvents({
      realm: scene.vaultRealm,
      resourcePath: `users/${recordId}`,
      operationTypes: 'UPDATE',
    });
    const [client] = await admin.clients.find({ clientId: scene.vault.id });
    expect(events[0]).toMatchObject({
      authDetails: { clientId: client?.id, ipAddress: expect.stringMatching(/./) },
    });
    const answer = await scene.app.call('/api/v1/audit', { session: person.session });
    const actions = AuditTrail.parse(await answer.json()).data.map(({ action }) => action);
    expect(actions).toEqual(['key.added', 'session.started']);
  });

  if (layout === 'a realm of its own for keys') {
    it('deletes a whole record: once the event is seen the system pays, and the log tells of it', async () => {
      const person = await scene.createUserWithKey();
      const { id } = await scene.readRecord(person.user);
      const token = await serviceToken(scene.vault, scene.vaultRealm);
      const { status } = await callKeycloak(token, 'DELETE', adminUrl(scene.vaultRealm, `/users/${id}`));
      expect(status).toBe(204);
      await expectSystemPays(person);
      expect(scene.app.events('vault_record_deleted')).toContainEqual(
        expect.objectContaining({ owner: `user:${person.user.id}`, vault_id: id }),
      );
    });
  }

  async function expectSystemPays(person: UserWithKey): Promise<void> {
    await until(
      async () => {
        const response = await chat(person);
        await response.text();
        return response.headers.get('x-ops-key-scope');
      },
      (scope) => scope === 'system',
    );
    expect(scene.upstream.requests.at(-1)?.key).toBe(SYSTEM_KEY);
    expect(await listKeys(scene.app, person.session)).toEqual([]);
  }
});
