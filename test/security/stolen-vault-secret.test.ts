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

/** A stored value with some members replaced. */
const withMembers = (value: string, change: Record<string, unknown>) =>
  JSON.stringify({ ...(JSON.parse(value) as object), ...change });

describe.each(LAYOUTS)('the stolen secret of the vault client with %s', (layout) => {
  let scenario: Scenario;
  beforeAll(async () => {
    scenario = await createScenario(layout);
  }, 120_000);
  afterAll(() => scenario.stop());
  afterEach(() => {
    scenario.upstream.reset();
  });

  /** Replaces a user's values for OpenAI, with the vault client's own token. */
  async function write({ user }: Pick<UserWithKey, 'user'>, values: string[]): Promise<string> {
    const { id } = await scenario.readRecord(user);
    const token = await serviceToken(scenario.vault, scenario.vaultRealm);
    const url = adminUrl(scenario.vaultRealm, `/users/${id}`);
    const stored = Stored.parse(JSON.parse((await callKeycloak(token, 'GET', url)).text));
    const attributes = { ...stored.attributes, byok_openai: values };
    expect((await callKeycloak(token, 'PUT', url, { ...stored, attributes })).status).toBe(204);
    return id;
  }

  const chat = ({ session }: Pick<UserWithKey, 'session'>) => scenario.chat(session, 'openai/gpt-4o');
  const listed = async ({ session, keyId }: UserWithKey) =>
    (await listKeys(scenario.app, session)).find(({ id }) => id === keyId);

  it('can restore a replaced key, which is used again for its owner only', async () => {
    const owner = await scenario.createUserWithKey();
    await scenario.storeKey(owner, { key: openAiKey(), key_id: owner.keyId });
    await write(owner, [owner.value]);
    await scenario.expectKeyUsed(owner);
  });

  it('can restore a deleted key, which is used again and listed', async () => {
    const owner = await scenario.createUserWithKey();
    await scenario.storeKey(owner, { key: openAiKey() });
    const path = `/api/v1/byok/keys/openai?key_id=${owner.keyId}`;
    expect(await statusOf(scenario.app.call(path, { method: 'DELETE', session: owner.session }))).toBe(200);
    await write(owner, [owner.value]);
    await scenario.expectKeyUsed(owner);
    expect(await listed(owner)).toMatchObject({ id: owner.keyId });
  });

  it('can disable a key: the chat is refused, and the system default is not used', async () => {
    const owner = await scenario.createUserWithKey();
    await write(owner, [withMembers(owner.value, { enabled: false })]);
    const response = await chat(owner);
    expect([response.status, await response.json()]).toMatchObject([
      424,
      { error: { code: 'no_usable_key' } },
    ]);
    expect(scenario.upstream.requests).toHaveLength(0);
  });

  it('can enable a key that its owner disabled: it is used for its owner only', async () => {
    const owner = await scenario.createUserWithKey();
    const path = `/api/v1/byok/keys/openai/${owner.keyId}`;
    const json = { enabled: false };
    expect(await statusOf(scenario.app.call(path, { method: 'PATCH', session: owner.session, json }))).toBe(
      200,
    );
    expect(await statusOf(chat(owner))).toBe(424);
    await write(owner, [withMembers(owner.value, { enabled: true })]);
    await scenario.expectKeyUsed(owner);
  });

  it('can change the shown label and last characters; the key stays the same', async () => {
    const owner = await scenario.createUserWithKey();
    await write(owner, [withMembers(owner.value, { label: 'of the thief', mask: 'sk-…9999' })]);
    expect(await listed(owner)).toMatchObject({ label: 'of the thief', key_preview: 'sk-…9999' });
    await scenario.expectKeyUsed(owner);
  });

  it('cannot plant a key: under another encryption key it does not decrypt, and no upstream is called', async () => {
    const owner = await scenario.createUserWithKey();
    const plaintext = {
      ...{ v: 1, kind: 'provider_key', owner: `user:${owner.user.id}`, provider: 'openai' },
      ...{ id: owner.keyId, key: openAiKey(), endpoint: null, expires_at: null },
    };
    const token = createKeyring([fernetKey()]).encrypt(JSON.stringify(plaintext));
    await write(owner, [withMembers(owner.value, { token })]);
    await scenario.expectUndecryptable(owner, 'openai/gpt-4o');
  });

  it('cannot plant an unencrypted key: it is unreadable, and no upstream is called', async () => {
    const owner = await scenario.createUserWithKey();
    await write(owner, ['sk-in-the-clear-by-the-hand-of-the-thief']);
    const response = await chat(owner);
    expect([response.status, await response.json()]).toMatchObject([
      424,
      { error: { code: 'key_undecryptable' } },
    ]);
    expect(scenario.upstream.requests).toHaveLength(0);
  });

  it('can delete keys: the system default is used and named; Keycloak’s events show it, the audit trail does not', async () => {
    const owner = await scenario.createUserWithKey();
    const recordId = await write(owner, []);
    await expectSystemDefaultUsed(owner);
    const admin = await adminClient(scenario.vaultRealm);
    const events = await admin.realms.findAdminEvents({
      realm: scenario.vaultRealm,
      resourcePath: `users/${recordId}`,
      operationTypes: 'UPDATE',
    });
    const [client] = await admin.clients.find({ clientId: scenario.vault.id });
    expect(events[0]).toMatchObject({
      authDetails: { clientId: client?.id, ipAddress: expect.stringMatching(/./) },
    });
    const answer = await scenario.app.call('/api/v1/audit', { session: owner.session });
    const actions = AuditTrail.parse(await answer.json()).data.map(({ action }) => action);
    expect(actions).toEqual(['key.added', 'session.started']);
  });

  if (layout === 'a separate realm for keys') {
    it('can delete a record: after the event the system default is used, and the log shows it', async () => {
      const owner = await scenario.createUserWithKey();
      const { id } = await scenario.readRecord(owner.user);
      const token = await serviceToken(scenario.vault, scenario.vaultRealm);
      const { status } = await callKeycloak(token, 'DELETE', adminUrl(scenario.vaultRealm, `/users/${id}`));
      expect(status).toBe(204);
      await expectSystemDefaultUsed(owner);
      expect(scenario.app.events('vault_record_deleted')).toContainEqual(
        expect.objectContaining({ owner: `user:${owner.user.id}`, vault_id: id }),
      );
    });
  }

  async function expectSystemDefaultUsed(owner: UserWithKey): Promise<void> {
    await until(
      async () => {
        const response = await chat(owner);
        await response.text();
        return response.headers.get('x-ops-key-scope');
      },
      (scope) => scope === 'system',
    );
    expect(scenario.upstream.requests.at(-1)?.key).toBe(SYSTEM_KEY);
    expect(await listKeys(scenario.app, owner.session)).toEqual([]);
  }
});
