import { randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Writable } from 'node:stream';
import { afterAll, afterEach, beforeAll, beforeEach } from '@jest/globals';
import { z } from 'zod';
import { readConfig, type Environment } from '../../../src/config/config.ts';
import { createKeyAdminContext, type KeyAdminContext } from '../../../src/cli/context.ts';
import { maskKey } from '../../../src/keys/key-format.ts';
import { createPoolWriter } from '../../../src/keys/pool-writer.ts';
import { parsePool, encryptKey, type StoredPool } from '../../../src/keys/stored-key.ts';
import { randomId } from '../../../src/lib/ids.ts';
import { createLog } from '../../../src/lib/log.ts';
import type { Owner } from '../../../src/lib/owner.ts';
import { openai } from '../../../src/providers/openai.ts';
import { fernetKey } from '../../support/app.ts';
import { evidence } from '../../support/evidence.ts';
import { adminClient, createDatabase, stack } from '../../support/stack.ts';
import { randomKey } from '../instance.ts';

/** Realms that nobody else's records lie in, so that a walk over all of them can be counted. */
export interface Realms {
  people: string;
  vaults: readonly string[];
  /** Of every client of theirs. */
  secret: string;
  drop(): Promise<void>;
}

/**
 * Copies of the shipped realms. In the realm of the people there is a vault client too, and attributes that
 * nobody declared are kept: it can hold keys itself, and keys of the old layout.
 */
export async function createRealms(vaultCount: number): Promise<Realms> {
  const suffix = randomBytes(4).toString('hex');
  const secret = randomBytes(24).toString('base64url');
  evidence.registerSecret('client secret', secret);
  const [people, vaults] = [
    `custody-people-${suffix}`,
    Array.from({ length: vaultCount }, (_, at) => `custody-vault-${at}-${suffix}`),
  ];
  const shipped = (file: string) =>
    RealmFile.parse(
      JSON.parse(
        readFileSync(`keycloak/${file}`, 'utf8')
          .replaceAll(/\$\{KEYCLOAK_\w+_SECRET\}/g, secret)
          .replaceAll(/\$\{(PUBLIC|INTERNAL)_URL\}/g, 'http://localhost:1'),
      ),
    );
  const [main, vault] = [shipped('ops-center-realm.json'), shipped('ops-center-vault-realm.json')];
  for (const realm of vaults) await (await adminClient()).realms.create({ ...vault, realm });
  const admin = await adminClient();
  await admin.realms.create({
    ...main,
    realm: people,
    clients: [...main.clients, ...vault.clients],
    users: [...main.users, ...vault.users],
  });
  const profile = await admin.users.getProfile({ realm: people });
  await admin.users.updateProfile({
    ...profile,
    realm: people,
    unmanagedAttributePolicy: 'ADMIN_EDIT' as never,
  });
  return {
    people,
    vaults,
    secret,
    async drop() {
      for (const realm of [people, ...vaults]) await (await adminClient()).realms.del({ realm });
    },
  };
}

const RealmFile = z.looseObject({
  clients: z.array(z.looseObject({})),
  users: z.array(z.looseObject({})),
});

export interface FixtureSettings {
  databaseUrl: string;
  realms: Pick<Realms, 'people' | 'secret'>;
  /** The realm of the people for the guide's layout. */
  vaultRealm: string;
  encryptionKeys: readonly string[];
  keycloakUrl?: string;
}

/** Realms and a database of a test file's own, both empty when a test begins. */
export interface Fixture {
  readonly realms: Realms;
  /** With the first of the vault realms, and one key. */
  readonly settings: FixtureSettings;
  /** What the commands work with there; closed after the test. */
  open(change?: Partial<FixtureSettings>): KeyAdminContext;
}

/** Call it at the top of a test file, before other hooks: they build on it. */
export function createFixture(vaultCount = 1): Fixture {
  let realms: Realms;
  let setting: FixtureSettings;
  const opened: KeyAdminContext[] = [];
  beforeAll(async () => {
    realms = await createRealms(vaultCount);
  }, 120_000);
  afterAll(() => realms.drop(), 60_000);
  beforeEach(async () => {
    await Promise.all([realms.people, ...realms.vaults].map(emptyRealm));
    const [{ appUrl }, vaultRealm = ''] = [await createDatabase(), realms.vaults[0]];
    setting = { databaseUrl: appUrl, realms, vaultRealm, encryptionKeys: [fernetKey()] };
  }, 60_000);
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((each) => each.close()));
  });
  return {
    get realms() {
      return realms;
    },
    get settings() {
      return setting;
    },
    open(change = {}) {
      const custody = openContext({ ...setting, ...change });
      opened.push(custody);
      return custody;
    },
  };
}

/** The settings of a command, as an operator would write them. */
export function toEnvironment(setting: FixtureSettings): Record<string, string> {
  for (const key of setting.encryptionKeys) evidence.registerSecret('encryption key', key);
  return {
    PORT: '1',
    METRICS_PORT: '2',
    DATABASE_URL: setting.databaseUrl,
    ENCRYPTION_KEY: setting.encryptionKeys.join(','),
    SESSION_SECRET: randomBytes(32).toString('base64url'),
    KEYCLOAK_URL: setting.keycloakUrl ?? stack.keycloak.url,
    KEYCLOAK_REALM: setting.realms.people,
    KEYCLOAK_VAULT_REALM: setting.vaultRealm,
    KEYCLOAK_WEB_CLIENT_SECRET: setting.realms.secret,
    KEYCLOAK_SERVICE_CLIENT_SECRET: setting.realms.secret,
    KEYCLOAK_VAULT_CLIENT_SECRET: setting.realms.secret,
  };
}

/** What the commands work with, on real servers. */
function openContext(setting: FixtureSettings): KeyAdminContext {
  const config = readConfig(toEnvironment(setting) satisfies Environment, () => {
    throw new Error('tests use no secret files');
  });
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      evidence.recordLog(chunk.toString());
      done();
    },
  });
  return createKeyAdminContext(config, createLog('trace', destination));
}

/** A person of the realm of the people. */
export async function createRealmUser(
  realms: Realms,
  attributes: Record<string, string[]> = {},
): Promise<{ id: string; owner: Owner; username: string }> {
  const username = `person-${randomBytes(5).toString('hex')}`;
  const admin = await adminClient(realms.people);
  const { id } = await admin.users.create({
    username,
    email: `${username}@test.example`,
    firstName: 'Test',
    lastName: 'Person',
    enabled: true,
    attributes: { subscription_tier: ['starter'], ...attributes },
  });
  return { id, owner: `user:${id}`, username };
}

/** An owner who need not exist among the people. */
export function randomOwner(): Owner {
  return `user:${randomUUID()}`;
}

/** Seals a key under the first key of the ring and stores it as the app does; answers its id and its text. */
export async function storeKey(
  custody: KeyAdminContext,
  owner: Owner,
  options: { provider?: string; ownerName?: string; label?: string } = {},
): Promise<{ id: string; key: string }> {
  const provider = options.provider ?? 'openai';
  const [id, key] = [randomId(), randomKey()];
  const value = encryptKey(custody.keyring, {
    ...{ owner, provider, id, key, endpoint: null, expiresAt: null, enabled: true },
    label: options.label ?? null,
    mask: maskKey(openai, key),
    createdAt: new Date().toISOString(),
  });
  await createPoolWriter(custody).write({
    ...{ owner, provider, actor: owner, requestId: 'test', action: 'key.added' as const },
    ownerName: options.ownerName ?? 'somebody',
    plan: (pool) => ({
      values: [...pool.keys.map((each) => each.value), ...pool.unreadable, value],
      keyIds: [id],
    }),
  });
  return { id, key };
}

/** What is stored of a provider. */
export async function readStoredPool(
  custody: KeyAdminContext,
  owner: Owner,
  provider = 'openai',
): Promise<StoredPool> {
  const record = await custody.vault.findRecord(owner, null);
  return parsePool(record?.values.get(provider) ?? []);
}

/** Saves some attributes of a record as an administrator does in the console; `[]` takes one away. */
export async function editOwnerRecord(
  custody: KeyAdminContext,
  owner: Owner,
  change: Record<string, string[]>,
): Promise<void> {
  const record = await custody.vault.findRecord(owner, null);
  if (record === undefined) throw new Error(`${owner} has no record`);
  const admin = await adminClient(custody.vaultLocation.realm);
  const { userProfileMetadata: _metadata, access: _access, ...stored } = record.representation;
  await admin.users.update(
    { id: record.id },
    { ...stored, attributes: { ...(stored.attributes as Record<string, string[]>), ...change } },
  );
}

/** What the trail says of an owner, oldest first. */
export async function readAuditTrail(
  custody: KeyAdminContext,
  owner: Owner,
): Promise<{ actor: string; action: string }[]> {
  const Row = z.object({ actor: z.string(), action: z.string() });
  return custody.database.withOwner(owner, (sql) =>
    sql.rows(Row, 'SELECT actor, action FROM audit_events ORDER BY id'),
  );
}

/** Deletes every user of a realm but service accounts. */
export async function emptyRealm(realm: string): Promise<void> {
  const admin = await adminClient(realm);
  for (;;) {
    const users = await admin.users.find({ max: 8, briefRepresentation: true });
    if (users.length === 0) return;
    await Promise.all(users.map(({ id = '' }) => admin.users.del({ id })));
  }
}
