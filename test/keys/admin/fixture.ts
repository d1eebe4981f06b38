import { randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Writable } from 'node:stream';
import { afterAll, afterEach, beforeAll, beforeEach } from '@jest/globals';
import { z } from 'zod';
import { readConfig, type Environment } from '../../../src/config/config.ts';
import { createKeyAdminContext, type KeyAdminContext } from '../../../src/cli/context.ts';
import { changePool } from '../../../src/keys/pool-writer.ts';
import { parsePool, encryptKey, maskKey, type StoredPool } from '../../../src/keys/stored-key.ts';
import { randomId } from '../../../src/lib/ids.ts';
import { createLog } from '../../../src/lib/log.ts';
import type { Owner } from '../../../src/lib/owner.ts';
import { openai } from '../../../src/providers/openai.ts';
import { compileCache } from '../../support/compile-cache.ts';
import { fernetKey } from '../../support/app.ts';
import { evidence } from '../../support/evidence.ts';
import { createDatabase } from '../../support/database.ts';
import { toCheapRealm } from '../../support/cheap-realm.ts';
import { adminClient, stack } from '../../support/stack.ts';
import { randomKey } from '../instance.ts';

/** Realms of one test file only, so that a list of all their users can be counted. */
export interface Realms {
  /** The realm of the users. */
  main: string;
  vaults: readonly string[];
  /** Client secret of all their clients. */
  secret: string;
  drop(): Promise<void>;
}

/**
 * Creates copies of the shipped realms. The main realm also has the vault client and keeps undeclared attributes,
 * so that it can hold keys itself and keys of the old layout.
 */
export async function createRealms(vaultCount: number): Promise<Realms> {
  const suffix = randomBytes(4).toString('hex');
  const secret = randomBytes(24).toString('base64url');
  evidence.registerSecret('client secret', secret);
  const [main, vaults] = [
    `key-admin-main-${suffix}`,
    Array.from({ length: vaultCount }, (_, index) => `key-admin-vault-${index}-${suffix}`),
  ];
  const shipped = (file: string) =>
    RealmFile.parse(
      JSON.parse(
        readFileSync(`keycloak/${file}`, 'utf8')
          .replaceAll(/\$\{KEYCLOAK_\w+_SECRET\}/g, secret)
          .replaceAll(/\$\{(PUBLIC|INTERNAL)_URL\}/g, 'http://localhost:1'),
      ),
    );
  const [mainFile, vaultFile] = [shipped('ops-center-realm.json'), shipped('ops-center-vault-realm.json')];
  for (const realm of vaults)
    await (await adminClient()).realms.create(toCheapRealm({ ...vaultFile, realm }));
  const admin = await adminClient();
  await admin.realms.create(
    toCheapRealm({
      ...mainFile,
      realm: main,
      clients: [...mainFile.clients, ...vaultFile.clients],
      users: [...mainFile.users, ...vaultFile.users],
    }),
  );
  const profile = await admin.users.getProfile({ realm: main });
  await admin.users.updateProfile({
    ...profile,
    realm: main,
    unmanagedAttributePolicy: 'ADMIN_EDIT' as never,
  });
  return {
    main,
    vaults,
    secret,
    async drop() {
      for (const realm of [main, ...vaults]) await (await adminClient()).realms.del({ realm });
    },
  };
}

const RealmFile = z.looseObject({
  clients: z.array(z.looseObject({})),
  users: z.array(z.looseObject({})),
});

export interface FixtureSettings {
  databaseUrl: string;
  realms: Pick<Realms, 'main' | 'secret'>;
  /** The main realm in the layout with one realm. */
  vaultRealm: string;
  encryptionKeys: readonly string[];
  keycloakUrl?: string;
}

/** Realms and a database of one test file, both empty at the start of each test. */
export interface Fixture {
  readonly realms: Realms;
  /** Settings with the first vault realm and one encryption key. */
  readonly settings: FixtureSettings;
  /** Creates the context of a command; it is closed after the test. */
  open(change?: Partial<FixtureSettings>): KeyAdminContext;
}

/** Registers the hooks of the fixture. Call it at the top of a test file, since other hooks depend on it. */
export function createFixture(vaultCount = 1): Fixture {
  let realms: Realms;
  let settings: FixtureSettings;
  const contexts: KeyAdminContext[] = [];
  beforeAll(async () => {
    realms = await createRealms(vaultCount);
  }, 120_000);
  afterAll(() => realms.drop(), 60_000);
  beforeEach(async () => {
    await Promise.all([realms.main, ...realms.vaults].map(emptyRealm));
    const [{ appUrl }, vaultRealm = ''] = [await createDatabase(), realms.vaults[0]];
    settings = { databaseUrl: appUrl, realms, vaultRealm, encryptionKeys: [fernetKey()] };
  }, 60_000);
  afterEach(async () => {
    await Promise.all(contexts.splice(0).map((each) => each.close()));
  });
  return {
    get realms() {
      return realms;
    },
    get settings() {
      return settings;
    },
    open(change = {}) {
      const context = openContext({ ...settings, ...change });
      contexts.push(context);
      return context;
    },
  };
}

/** The environment variables of a command. */
export function toEnvironment(settings: FixtureSettings): Record<string, string> {
  for (const key of settings.encryptionKeys) evidence.registerSecret('encryption key', key);
  return {
    ...compileCache(),
    PORT: '1',
    METRICS_PORT: '2',
    DATABASE_URL: settings.databaseUrl,
    ENCRYPTION_KEY: settings.encryptionKeys.join(','),
    SESSION_SECRET: randomBytes(32).toString('base64url'),
    KEYCLOAK_URL: settings.keycloakUrl ?? stack.keycloak.url,
    KEYCLOAK_REALM: settings.realms.main,
    KEYCLOAK_VAULT_REALM: settings.vaultRealm,
    KEYCLOAK_WEB_CLIENT_SECRET: settings.realms.secret,
    KEYCLOAK_SERVICE_CLIENT_SECRET: settings.realms.secret,
    KEYCLOAK_VAULT_CLIENT_SECRET: settings.realms.secret,
  };
}

/** Creates the context of a command with the real servers. */
function openContext(settings: FixtureSettings): KeyAdminContext {
  const config = readConfig(toEnvironment(settings) satisfies Environment, () => {
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

/** Creates a user in the main realm. */
export async function createRealmUser(
  realms: Realms,
  attributes: Record<string, string[]> = {},
): Promise<{ id: string; owner: Owner; username: string }> {
  const username = `user-${randomBytes(5).toString('hex')}`;
  const admin = await adminClient(realms.main);
  const { id } = await admin.users.create({
    username,
    email: `${username}@test.example`,
    firstName: 'Test',
    lastName: 'User',
    enabled: true,
    attributes: { subscription_tier: ['starter'], ...attributes },
  });
  return { id, owner: `user:${id}`, username };
}

/** An owner that is not a user of the main realm. */
export function randomOwner(): Owner {
  return `user:${randomUUID()}`;
}

/** Stores a key as the app does, encrypted with the first key of the ring. Returns its id and plaintext. */
export async function storeKey(
  context: KeyAdminContext,
  owner: Owner,
  options: { provider?: string; ownerName?: string; label?: string } = {},
): Promise<{ id: string; key: string }> {
  const provider = options.provider ?? 'openai';
  const [id, key] = [randomId(), randomKey()];
  const value = encryptKey(context.keyring, {
    ...{ owner, provider, id, key, endpoint: null, expiresAt: null, enabled: true },
    label: options.label ?? null,
    mask: maskKey(openai, key),
    createdAt: new Date().toISOString(),
  });
  const ownerName = options.ownerName ?? 'a-user';
  const change = { owner, ownerName, provider, requestId: 'test', action: 'key.added' } as const;
  await changePool(context, change, (pool) => ({
    values: [...pool.keys.map((each) => each.value), ...pool.unreadable, value],
    keyIds: [id],
  }));
  return { id, key };
}

/** Reads the stored keys of a provider. */
export async function readStoredPool(
  context: KeyAdminContext,
  owner: Owner,
  provider = 'openai',
): Promise<StoredPool> {
  const record = await context.vault.findRecord(owner, null);
  return parsePool(record?.values.get(provider) ?? []);
}

/** Saves attributes of a vault record as an administrator does in the console; `[]` removes one. */
export async function editOwnerRecord(
  context: KeyAdminContext,
  owner: Owner,
  change: Record<string, string[]>,
): Promise<void> {
  const record = await context.vault.findRecord(owner, null);
  if (record === undefined) throw new Error(`${owner} has no record`);
  const admin = await adminClient(context.vaultLocation.realm);
  const { userProfileMetadata: _metadata, access: _access, ...stored } = record.representation;
  await admin.users.update(
    { id: record.id },
    { ...stored, attributes: { ...(stored.attributes as Record<string, string[]>), ...change } },
  );
}

/** Reads the audit trail of an owner, oldest first. */
export async function readAuditTrail(
  context: KeyAdminContext,
  owner: Owner,
): Promise<{ actor: string; action: string }[]> {
  const Row = z.object({ actor: z.string(), action: z.string() });
  return context.database.withOwner(owner, (sql) =>
    sql.rows(Row, 'SELECT actor, action FROM audit_events ORDER BY id'),
  );
}

/** Deletes all users of a realm except service accounts. */
export async function emptyRealm(realm: string): Promise<void> {
  const admin = await adminClient(realm);
  for (;;) {
    const users = await admin.users.find({ max: 8, briefRepresentation: true });
    if (users.length === 0) return;
    await Promise.all(users.map(({ id = '' }) => admin.users.del({ id })));
  }
}
