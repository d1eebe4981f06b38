import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { AUDIT_ACTIONS } from '../../src/audit/schema.ts';
import { isAppError, type ErrorCode } from '../../src/lib/errors.ts';
import { createDatabase as openDatabase } from '../../src/lib/postgres/database.ts';
import { createLog } from '../../src/lib/log.ts';
import { PROVIDERS } from '../../src/providers/index.ts';
import { createDatabase } from '../support/database.ts';
import { adminClient, stack } from '../support/stack.ts';
import {
  createInstance,
  FORBIDDEN_ENDPOINT,
  createPrincipal,
  randomEncryptionKey,
  randomKey,
  type Instance,
  type InstanceOptions,
} from './instance.ts';
import { createInstanceOptions } from './instance-options.ts';

let options: InstanceOptions;
let instance: Instance;
const instances: Instance[] = [];
/** All keys that this file has submitted. */
const submitted: string[] = [];

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  options = createInstanceOptions(appUrl);
  instance = openInstance({});
});

afterAll(async () => {
  await Promise.all(instances.map((each) => each.close()));
});

function openInstance(change: Partial<InstanceOptions>): Instance {
  const made = createInstance({ ...options, ...change });
  instances.push(made);
  return made;
}

function submit(prefix = 'sk-'): string {
  const key = randomKey(prefix);
  submitted.push(key);
  return key;
}

const body = (input: { provider?: string; key?: string; label?: string; endpoint?: string }) => ({
  provider: input.provider ?? 'openai',
  key: input.key ?? submit(),
  label: input.label ?? null,
  endpoint: input.endpoint ?? null,
});

/** The vault record of a user, as an administrator sees it. */
async function readRecord(userId: string) {
  const admin = await adminClient(stack.keycloak.vaultRealm);
  const [found] = await admin.users.find({ username: `user.${userId}`, exact: true });
  const record = found?.id === undefined ? undefined : await admin.users.findOne({ id: found.id });
  return record ?? undefined;
}

/** Edits a user's vault record, as an administrator could. */
async function editRecord(
  userId: string,
  edit: (attributes: Record<string, string[]>) => Record<string, string[]>,
) {
  const admin = await adminClient(stack.keycloak.vaultRealm);
  const record = await readRecord(userId);
  const attributes = edit((record?.attributes ?? {}) as Record<string, string[]>);
  await admin.users.update({ id: String(record?.id) }, { ...record, attributes });
}

async function codeOf(work: Promise<unknown>): Promise<ErrorCode> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (isAppError(error)) return error.code;
  throw new Error('expected an AppError', { cause: error });
}

async function readAuditTrail(userId: string) {
  const row = z.object({
    actor: z.string(),
    action: z.enum(AUDIT_ACTIONS),
    object: z.string(),
    request_id: z.string(),
  });
  return instance.database.withOwner(`user:${userId}`, (sql) =>
    sql.rows(row, 'SELECT actor, action, object, request_id FROM audit_events ORDER BY id'),
  );
}

async function generationOf(userId: string): Promise<number> {
  const rows = await instance.database.withOwner(`user:${userId}`, (sql) =>
    sql.rows(z.object({ generation: z.coerce.number() }), 'SELECT generation FROM owners'),
  );
  return rows[0]?.generation ?? 0;
}

describe('adding a key', () => {
  it('returns the view of the key and lists it', async () => {
    const principal = createPrincipal();
    const key = submit();
    const answer = await instance.keys.add(principal, body({ key, label: 'Mine' }), 'r1');
    expect(answer).toMatchObject({
      message: 'OpenAI key added.',
      provider: 'openai',
      provider_name: 'OpenAI',
    });
    expect(answer.key).toEqual({
      id: expect.stringMatching(/^[0-9A-Za-z]{12}$/),
      scope: 'personal',
      provider: 'openai',
      provider_name: 'OpenAI',
      key_preview: `sk-…${key.slice(-4)}`,
      label: 'Mine',
      endpoint: null,
      endpoint_slug: null,
      enabled: true,
      added_date: expect.stringMatching(/Z$/),
      updated_date: expect.stringMatching(/Z$/),
      expires_at: null,
      last_used: null,
      last_tested: null,
      test_status: 'untested',
      test_message: null,
      version: expect.stringMatching(/^[0-9a-f]{16}$/),
    });
    expect(await instance.keys.listKeys(principal)).toEqual([answer.key]);
  });

  it('stores it in a disabled user of the vault realm that has no e-mail and no credentials', async () => {
    const principal = createPrincipal();
    const { key } = await instance.keys.add(principal, body({}), 'r1');
    const record = await readRecord(principal.user.id);
    expect(record).toMatchObject({ username: `user.${principal.user.id}`, enabled: false });
    expect(record?.email).toBeUndefined();
    const admin = await adminClient(stack.keycloak.vaultRealm);
    expect(await admin.users.getCredentials({ id: String(record?.id) })).toEqual([]);
    const attributes = record?.attributes as Record<string, string[]>;
    expect(attributes).toMatchObject({
      owner: [`user:${principal.user.id}`],
      owner_name: [principal.user.username],
    });
    const value = JSON.parse(attributes['byok_openai']?.[0] ?? '') as Record<string, unknown>;
    expect(value).toMatchObject({ v: 1, id: key.id, token: expect.stringMatching(/^gAAAAA/) });
  });

  it('stores it so that the gateway can decrypt it', async () => {
    const principal = createPrincipal();
    const key = submit();
    await instance.keys.add(principal, body({ key }), 'r1');
    const pools = await instance.keys.readKeysByProvider(`user:${principal.user.id}`);
    expect([...pools.keys()]).toEqual(['openai']);
    expect(pools.get('openai')?.map((each) => each.decrypt())).toEqual([{ secret: key, endpoint: null }]);
  });

  it('names the vault record by a digest where the subject is not a UUID', async () => {
    const id = `f:${randomUUID()}:someone`;
    const principal = createPrincipal(id, 'starter', 'federated');
    await instance.keys.add(principal, body({}), 'r1');
    expect(await instance.keys.listKeys(principal)).toHaveLength(1);
    const admin = await adminClient(stack.keycloak.vaultRealm);
    const [found] = await admin.users.find({ q: `owner:"user:${id}"` });
    expect(found?.username).toMatch(/^user\.[0-9a-f]{64}$/);
  });

  it('stores an endpoint with the key where the provider has no address', async () => {
    const principal = createPrincipal();
    const key = submit();
    const input = body({ provider: 'custom', key, endpoint: 'https://LLM.example:8443/v1/' });
    const answer = await instance.keys.add(principal, input, 'r1');
    expect(answer.key.endpoint).toBe('https://llm.example:8443/v1');
    const pools = await instance.keys.readKeysByProvider(`user:${principal.user.id}`);
    expect(pools.get('custom')?.[0]?.decrypt()).toEqual({
      secret: key,
      endpoint: 'https://llm.example:8443/v1',
    });
  });

  it.each<[ErrorCode, Parameters<typeof body>[0]]>([
    ['unknown_provider', { provider: 'unknown' }],
    ['unknown_provider', { provider: '__proto__' }],
    ['invalid_key_format', { key: '***stored***' }],
    ['invalid_key_format', { key: '' }],
    ['wrong_provider_key', { key: `sk-or-v1-${'0'.repeat(32)}` }],
    ['key_too_long', { key: `sk-${'a'.repeat(1022)}` }],
    ['validation_failed', { provider: 'custom' }],
    ['validation_failed', { endpoint: 'https://another.example/v1' }],
    ['endpoint_forbidden', { provider: 'custom', endpoint: FORBIDDEN_ENDPOINT }],
    // Each quote takes two characters in JSON, and the limit applies to the assembled value.
    ['key_too_long', { provider: 'custom', key: '"'.repeat(1000), endpoint: 'https://llm.example/v1' }],
  ])('is refused as %s without a trace (%#)', async (code, input) => {
    const principal = createPrincipal();
    expect(await codeOf(instance.keys.add(principal, body(input), 'r1'))).toBe(code);
    expect(await readRecord(principal.user.id)).toBeUndefined();
    expect(await readAuditTrail(principal.user.id)).toEqual([]);
  });

  it('stores the longest key with the longest label', async () => {
    const principal = createPrincipal();
    const key = submit() + 'k'.repeat(1024 - 39);
    const { key: view } = await instance.keys.add(principal, body({ key, label: 'ß'.repeat(120) }), 'r1');
    const pools = await instance.keys.readKeysByProvider(`user:${principal.user.id}`);
    expect(pools.get('openai')?.[0]?.decrypt()?.secret).toBe(key);
    expect(view.label).toHaveLength(120);
  });

  it('raises the generation before and after the write', async () => {
    const principal = createPrincipal();
    await instance.keys.add(principal, body({}), 'r1');
    expect(await generationOf(principal.user.id)).toBe(2);
    await instance.keys.add(principal, body({ provider: 'demo', key: submit('demo-') }), 'r2');
    expect(await generationOf(principal.user.id)).toBe(4);
  });
});

describe('deleting keys', () => {
  it('removes one key by its id, and all without an id', async () => {
    const principal = createPrincipal();
    const first = await instance.keys.add(principal, body({}), 'r1');
    const second = await instance.keys.add(principal, body({}), 'r2');
    const other = await instance.keys.add(principal, body({ provider: 'demo', key: submit('demo-') }), 'r3');
    await instance.keys.add(principal, body({}), 'r4');
    expect(await instance.keys.remove(principal, 'openai', first.key.id, 'r5')).toEqual({
      message: '1 OpenAI key deleted.',
      deleted: 1,
    });
    const left = await instance.keys.listKeys(principal);
    expect(left.map((key) => key.id)).toContain(second.key.id);
    expect(left).toHaveLength(3);
    expect(await instance.keys.remove(principal, 'openai', undefined, 'r6')).toMatchObject({ deleted: 2 });
    expect(await instance.keys.listKeys(principal)).toEqual([other.key]);
    expect((await readRecord(principal.user.id))?.attributes).not.toHaveProperty('byok_openai');
  });

  it('answers key_not_found without keys and for a key of another user', async () => {
    const [mine, yours] = [createPrincipal(), createPrincipal()];
    const { key } = await instance.keys.add(yours, body({}), 'r1');
    expect(await codeOf(instance.keys.remove(mine, 'openai', key.id, 'r2'))).toBe('key_not_found');
    expect(await codeOf(instance.keys.remove(mine, 'openai', undefined, 'r2'))).toBe('key_not_found');
    expect(await codeOf(instance.keys.remove(yours, 'openai', 'abcDEF123456', 'r2'))).toBe('key_not_found');
    expect(await codeOf(instance.keys.remove(yours, 'demo', key.id, 'r2'))).toBe('key_not_found');
    expect(await codeOf(instance.keys.remove(yours, 'unknown', key.id, 'r2'))).toBe('unknown_provider');
    expect(await instance.keys.listKeys(yours)).toHaveLength(1);
    expect(await readRecord(mine.user.id)).toBeUndefined();
  });

  it('is open to every tier', async () => {
    const principal = createPrincipal();
    await instance.keys.add(principal, body({}), 'r1');
    const downgraded = createPrincipal(principal.user.id, 'free');
    expect(await instance.keys.remove(downgraded, 'openai', undefined, 'r2')).toMatchObject({ deleted: 1 });
  });

  it('deletes the key status', async () => {
    const principal = createPrincipal();
    const owner = `user:${principal.user.id}` as const;
    const { key } = await instance.keys.add(principal, body({}), 'r1');
    await instance.keys.recordRefusal(owner, 'openai', key.id);
    await instance.keys.remove(principal, 'openai', key.id, 'r2');
    const rows = await instance.database.withOwner(owner, (sql) =>
      sql.rows(z.object({ key_id: z.string() }), 'SELECT key_id FROM provider_key_facts'),
    );
    expect(rows).toEqual([]);
  });
});

describe('the audit trail', () => {
  it('contains each added and deleted key with actor, object and request id', async () => {
    const principal = createPrincipal();
    const { key: a } = await instance.keys.add(principal, body({}), 'r1');
    const { key: b } = await instance.keys.add(principal, body({}), 'r2');
    await instance.keys.remove(principal, 'openai', undefined, 'r3');
    const actor = `user:${principal.user.id}`;
    const events = await readAuditTrail(principal.user.id);
    expect(events.slice(0, 2)).toEqual([
      { actor, action: 'key.added', object: `key:openai/${a.id}`, request_id: 'r1' },
      { actor, action: 'key.added', object: `key:openai/${b.id}`, request_id: 'r2' },
    ]);
    expect(events.slice(2)).toHaveLength(2);
    for (const id of [a.id, b.id])
      expect(events).toContainEqual({
        actor,
        action: 'key.deleted',
        object: `key:openai/${id}`,
        request_id: 'r3',
      });
  });
});

describe('providers and statistics', () => {
  it('show what is configured', async () => {
    const principal = createPrincipal();
    const { key } = await instance.keys.add(principal, body({}), 'r1');
    await instance.keys.add(principal, body({ provider: 'demo', key: submit('demo-') }), 'r2');
    const providers = await instance.keys.listProviders(principal);
    expect(providers.map(({ id, configured, key_count }) => [id, configured, key_count])).toEqual([
      ...PROVIDERS.map(({ id }) => {
        const isStored = id === 'openai' || id === 'demo';
        return [id, isStored, isStored ? 1 : 0];
      }),
    ]);
    expect(providers[0]).toEqual({
      id: 'openai',
      name: 'OpenAI',
      kind: 'llm',
      key_format: 'sk-...',
      requires_key: true,
      requires_endpoint: false,
      configured: true,
      key_count: 1,
      docs_url: 'https://platform.openai.com/api-keys',
      models: expect.arrayContaining(['gpt-4o']),
    });
    const owner = `user:${principal.user.id}` as const;
    await instance.keys.recordRefusal(owner, 'openai', key.id);
    expect(await instance.keys.stats(principal)).toEqual({
      total_providers: PROVIDERS.length,
      configured_providers: 2,
      tested_providers: 1,
      valid_providers: 0,
      user_tier: 'starter',
      providers: Object.fromEntries(
        PROVIDERS.map(({ id }) => [
          id,
          { key_count: id === 'openai' || id === 'demo' ? 1 : 0, valid_count: 0 },
        ]),
      ),
    });
    await instance.keys.recordUse(owner, 'openai', key.id);
    expect(await instance.keys.stats(principal)).toMatchObject({
      valid_providers: 1,
      providers: { openai: { key_count: 1, valid_count: 1 } },
    });
  });

  it('are empty for a user without keys, and store nothing', async () => {
    const principal = createPrincipal();
    expect(await instance.keys.listKeys(principal)).toEqual([]);
    expect((await instance.keys.stats(principal)).configured_providers).toBe(0);
    expect(await readRecord(principal.user.id)).toBeUndefined();
  });
});

describe('a vault record that was edited by an administrator', () => {
  async function withKey() {
    const principal = createPrincipal();
    const key = submit();
    const { key: view } = await instance.keys.add(principal, body({ key }), 'r1');
    const owner = `user:${principal.user.id}` as const;
    const decrypted = async (where = instance) =>
      (await where.keys.readKeysByProvider(owner)).get('openai')?.map((each) => each.decrypt());
    return { principal, key, view, owner, decrypted };
  }

  it('is not decrypted when a ciphertext was edited, and decrypts again when that is undone', async () => {
    const { principal, key, decrypted } = await withKey();
    const edit = (from: RegExp, to: string) =>
      editRecord(principal.user.id, (attributes) => ({
        ...attributes,
        byok_openai: (attributes['byok_openai'] ?? []).map((value) => value.replace(from, to)),
      }));
    await edit(/"token":"gA/, '"token":"gB');
    expect(await decrypted()).toEqual([undefined]);
    expect(await instance.keys.listKeys(principal)).toHaveLength(1);
    await edit(/"token":"gB/, '"token":"gA');
    expect(await decrypted()).toEqual([{ secret: key, endpoint: null }]);
  });

  it("is not decrypted with a key from another user's record", async () => {
    const { principal: victim } = await withKey();
    const { principal: thief, decrypted } = await withKey();
    const stolen =
      ((await readRecord(victim.user.id))?.attributes as Record<string, string[]>)['byok_openai'] ?? [];
    await editRecord(thief.user.id, (attributes) => ({ ...attributes, byok_openai: stolen }));
    expect(await decrypted()).toEqual([undefined]);
    expect(await instance.keys.listKeys(victim)).toHaveLength(1);
  });

  it('is not decrypted with another endpoint', async () => {
    const principal = createPrincipal();
    const input = body({ provider: 'custom', endpoint: 'https://llm.example/v1' });
    await instance.keys.add(principal, input, 'r1');
    await editRecord(principal.user.id, (attributes) => ({
      ...attributes,
      byok_custom: (attributes['byok_custom'] ?? []).map((value) =>
        value.replace('llm.example', 'thief.example'),
      ),
    }));
    const pools = await instance.keys.readKeysByProvider(`user:${principal.user.id}`);
    expect(pools.get('custom')?.map((each) => [each.endpoint, each.decrypt()])).toEqual([
      ['https://thief.example/v1', undefined],
    ]);
  });

  it('is not decrypted with another encryption key, and keeps its keys', async () => {
    const { principal, key, decrypted } = await withKey();
    const otherKeyInstance = openInstance({ encryptionKeys: [randomEncryptionKey()] });
    expect(await decrypted(otherKeyInstance)).toEqual([undefined]);
    const { key: added } = await otherKeyInstance.keys.add(principal, body({}), 'r2');
    await otherKeyInstance.keys.remove(principal, 'openai', added.id, 'r3');
    expect(await decrypted()).toEqual([{ secret: key, endpoint: null }]);
  });

  it('keeps unreadable values through writes', async () => {
    const { principal, view } = await withKey();
    const noise = ['typed by hand, "with" quotes ', '{"v":2,"later":true}'];
    await editRecord(principal.user.id, (attributes) => ({
      ...attributes,
      byok_openai: [...(attributes['byok_openai'] ?? []), ...noise],
    }));
    expect((await instance.keys.listKeys(principal)).map((key) => key.id)).toEqual([view.id]);
    const { key: added } = await instance.keys.add(principal, body({}), 'r2');
    for (const id of [view.id, added.id]) await instance.keys.remove(principal, 'openai', id, 'r3');
    const attributes = (await readRecord(principal.user.id))?.attributes as Record<string, string[]>;
    expect(attributes['byok_openai']?.toSorted()).toEqual(noise.toSorted());
    expect(await instance.keys.listKeys(principal)).toEqual([]);
  });

  it('has an unreadable value as a key that cannot be decrypted, until its owner deletes all', async () => {
    const { principal } = await withKey();
    await editRecord(principal.user.id, (attributes) => ({ ...attributes, byok_openai: ['{"v":1,"id":'] }));
    const owner = `user:${principal.user.id}` as const;
    const pool = (await instance.keys.readKeysByProvider(owner)).get('openai') ?? [];
    expect(pool.map((key) => [key.enabled, key.decrypt()])).toEqual([[true, undefined]]);
    expect(await instance.keys.remove(principal, 'openai', undefined, 'r2')).toMatchObject({ deleted: 1 });
    expect((await instance.keys.readKeysByProvider(owner)).has('openai')).toBe(false);
  });

  it('counts all values deleted with all keys, including unreadable ones', async () => {
    const { principal } = await withKey();
    await editRecord(principal.user.id, (attributes) => ({
      ...attributes,
      byok_openai: [...(attributes['byok_openai'] ?? []), '{"v":1,"id":', 'typed by hand'],
    }));
    expect(await instance.keys.remove(principal, 'openai', undefined, 'r2')).toEqual({
      message: '3 OpenAI keys deleted.',
      deleted: 3,
    });
  });

  it('lists a duplicate id once, and the next write removes the older value', async () => {
    const { principal, view } = await withKey();
    await editRecord(principal.user.id, (attributes) => {
      const [value = ''] = attributes['byok_openai'] ?? [];
      return { ...attributes, byok_openai: [value, value.replace('"label":null', '"label":"copy"')] };
    });
    const [shown, ...more] = await instance.keys.listKeys(principal);
    expect([shown?.id, more]).toEqual([view.id, []]);
    await instance.keys.add(principal, body({}), 'r2');
    const attributes = (await readRecord(principal.user.id))?.attributes as Record<string, string[]>;
    expect(attributes['byok_openai']).toHaveLength(2);
  });

  it('is neither read nor written when it names another owner, and the event is logged', async () => {
    const { principal, owner, view } = await withKey();
    await editRecord(principal.user.id, (attributes) => ({ ...attributes, owner: ['user:someone-else'] }));
    const eventsBefore = await readAuditTrail(principal.user.id);
    for (const work of [
      instance.keys.listKeys(principal),
      instance.keys.readKeysByProvider(owner),
      instance.keys.add(principal, body({}), 'r2'),
      instance.keys.remove(principal, 'openai', view.id, 'r3'),
    ])
      expect(await codeOf(work)).toBe('key_undecryptable');
    const record = await readRecord(principal.user.id);
    expect((record?.attributes as Record<string, string[]>)['byok_openai']).toHaveLength(1);
    expect(await readAuditTrail(principal.user.id)).toEqual(eventsBefore);
    const lines = instance.logged().split('\n');
    const events = lines.filter(
      (line) => line.includes('key_undecryptable') && line.includes(record?.id ?? ''),
    );
    expect(events.map((line) => JSON.parse(line) as unknown)).toContainEqual(
      expect.objectContaining({ level: 40, user: principal.user.id, vault_id: record?.id }),
    );
  });

  it('never accepts an eleventh key', async () => {
    const { principal } = await withKey();
    await editRecord(principal.user.id, (attributes) => {
      const [value = ''] = attributes['byok_openai'] ?? [];
      const copies = Array.from({ length: 9 }, (_, at) => value.replace(/"id":"./, `"id":"${at}`));
      return { ...attributes, byok_openai: [...new Set([value, ...copies])] };
    });
    while ((await instance.keys.listKeys(principal)).length < 10)
      await instance.keys.add(principal, body({}), 'r2');
    expect(await codeOf(instance.keys.add(principal, body({}), 'r3'))).toBe('pool_full');
    expect(await instance.keys.listKeys(principal)).toHaveLength(10);
  });
});

describe('on a failure of Keycloak or Postgres', () => {
  it('a vault record that is not found in a wrong realm is never read as "no keys", and nothing is deleted', async () => {
    const principal = createPrincipal();
    const owner = `user:${principal.user.id}` as const;
    const { key } = await instance.keys.add(principal, body({}), 'r1');
    await instance.keys.recordUse(owner, 'openai', key.id);
    // The service account of the main realm can view the users of that realm, which has no vault records.
    const wrongRealm = openInstance({ realm: stack.keycloak.realm, client: stack.keycloak.serviceClient });
    // With "no keys" the gateway would use the system's key instead, and the system would pay.
    expect(await codeOf(wrongRealm.keys.listKeys(principal))).toBe('key_undecryptable');
    expect(await codeOf(wrongRealm.keys.readKeysByProvider(owner))).toBe('key_undecryptable');
    expect(await codeOf(wrongRealm.keys.remove(principal, 'openai', undefined, 'r2'))).toBe('key_not_found');
    expect(await codeOf(wrongRealm.keys.add(principal, body({}), 'r3'))).toBe('keycloak_unavailable');
    const [back] = await instance.keys.listKeys(principal);
    expect(back).toMatchObject({ id: key.id, last_used: expect.stringMatching(/Z$/) });
  });

  it('the vault record is found again after the database was lost', async () => {
    const principal = createPrincipal();
    await instance.keys.add(principal, body({}), 'r1');
    const { appUrl } = await createDatabase();
    const restored = openInstance({ databaseUrl: appUrl });
    expect(await restored.keys.listKeys(principal)).toHaveLength(1);
    await restored.keys.add(principal, body({}), 'r2');
    expect(await instance.keys.listKeys(principal)).toHaveLength(2);
  });

  it('a deleted vault record is replaced by a new one', async () => {
    const principal = createPrincipal();
    await instance.keys.add(principal, body({}), 'r1');
    const admin = await adminClient(stack.keycloak.vaultRealm);
    await admin.users.del({ id: String((await readRecord(principal.user.id))?.id) });
    const { key } = await instance.keys.add(principal, body({}), 'r2');
    expect((await instance.keys.listKeys(principal)).map((each) => each.id)).toEqual([key.id]);
  });

  it('reads and writes answer keycloak_unavailable while Keycloak is down', async () => {
    const unavailable = openInstance({ keycloakUrl: 'http://127.0.0.1:9' });
    const principal = createPrincipal();
    expect(await codeOf(unavailable.keys.listKeys(principal))).toBe('keycloak_unavailable');
    expect(await codeOf(unavailable.keys.add(principal, body({}), 'r1'))).toBe('keycloak_unavailable');
    expect(await codeOf(unavailable.keys.remove(principal, 'openai', undefined, 'r1'))).toBe(
      'keycloak_unavailable',
    );
  });

  it('reads answer keycloak_unavailable when the vault client cannot authenticate', async () => {
    const wrong = openInstance({ client: { ...options.client, secret: 'not-the-secret' } });
    expect(await codeOf(wrong.keys.listKeys(createPrincipal()))).toBe('keycloak_unavailable');
  });

  it('reads and writes answer database_unavailable while Postgres is down, and nothing is written', async () => {
    const unavailable = openInstance({ databaseUrl: 'postgres://unknown@127.0.0.1:9/none' });
    const principal = createPrincipal();
    expect(await codeOf(unavailable.keys.listKeys(principal))).toBe('database_unavailable');
    expect(await codeOf(unavailable.keys.add(principal, body({}), 'r1'))).toBe('database_unavailable');
    expect(await codeOf(unavailable.keys.recordUse('user:x', 'openai', 'k'))).toBe('database_unavailable');
    expect(await readRecord(principal.user.id)).toBeUndefined();
  });
});

describe('row-level security', () => {
  it('hides rows from a query without an owner and with another owner', async () => {
    const principal = createPrincipal();
    const { key } = await instance.keys.add(principal, body({}), 'r1');
    await instance.keys.recordUse(`user:${principal.user.id}`, 'openai', key.id);
    const appDatabase = openDatabase({
      url: options.databaseUrl,
      max: 1,
      applicationName: 'keys-test',
      log: createLog('silent'),
    });
    try {
      const anything = z.object({});
      for (const table of ['owners', 'audit_events', 'provider_key_facts']) {
        expect(await appDatabase.rows(anything, `SELECT 1 FROM ${table}`)).toEqual([]);
        const foreignRows = appDatabase.withOwner('user:someone-else', (sql) =>
          sql.rows(anything, `SELECT 1 FROM ${table}`),
        );
        expect(await foreignRows).toEqual([]);
        const ownRows = appDatabase.withOwner(`user:${principal.user.id}`, (sql) =>
          sql.rows(anything, `SELECT 1 FROM ${table}`),
        );
        expect(await ownRows).not.toEqual([]);
      }
    } finally {
      await appDatabase.close();
    }
  });
});

describe('a submitted key', () => {
  it('is in no response, no error, no log line and no table', async () => {
    const principal = createPrincipal();
    const shown: unknown[] = [];
    shown.push(await instance.keys.add(principal, body({}), 'r1'));
    shown.push(await instance.keys.listKeys(principal), await instance.keys.listProviders(principal));
    shown.push(await instance.keys.stats(principal));
    const pools = await instance.keys.readKeysByProvider(`user:${principal.user.id}`);
    shown.push([...pools.values()]);
    const refused = instance.keys.add(principal, body({ provider: 'openrouter' }), 'r2');
    shown.push(await refused.catch((error: unknown) => [String(error), (error as Error).stack]));
    shown.push(await readRecord(principal.user.id));
    for (const table of ['owners', 'audit_events', 'provider_key_facts'])
      shown.push(
        await instance.database.withOwner(`user:${principal.user.id}`, (sql) =>
          sql.rows(z.record(z.string(), z.unknown()), `SELECT * FROM ${table}`),
        ),
      );
    const text = JSON.stringify(shown) + instances.map((each) => each.logged()).join('');
    expect(submitted.length).toBeGreaterThan(20);
    for (const key of submitted) expect(text.includes(key)).toBe(false);
  });
});
