import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { toPrintable } from '../../src/cli/admin-command.ts';
import { getRunningSettings } from '../../src/cli/running-stack.ts';
import type { KeyAdminContext } from '../../src/cli/context.ts';
import { assertVaultLocation } from '../../src/keys/vault-location.ts';
import { assertCanary } from '../../src/keys/admin/canary.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { createDatabase as openDatabase } from '../../src/lib/postgres/database.ts';
import { createLog } from '../../src/lib/log.ts';
import type { Owner } from '../../src/lib/owner.ts';
import {
  createRealmUser,
  createFixture,
  editOwnerRecord,
  toEnvironment,
  randomOwner,
  readStoredPool,
  storeKey,
  type FixtureSettings,
} from '../keys/admin/fixture.ts';
import { randomKey } from '../keys/instance.ts';
import { fernetKey } from '../support/app.ts';
import { adminClient } from '../support/stack.ts';

const MAIN = path.resolve(import.meta.dirname, '..', '..', 'src', 'cli', 'main.ts');

const home = createFixture(2);
let cwd: string;
let context: KeyAdminContext;
/** Plaintext keys and tokens. No command may print them. */
const secrets: string[] = [];

beforeEach(async () => {
  context = home.open();
  await assertVaultLocation(context.database, context.vaultLocation);
  await assertCanary(context);
  cwd = mkdtempSync(path.join(tmpdir(), 'ops-admin-commands-'));
  secrets.splice(0);
});
afterEach(() => {
  rmSync(cwd, { recursive: true });
});

async function storeKeyOf(owner: Owner, ownerName?: string): Promise<void> {
  const { key } = await storeKey(context, owner, ownerName === undefined ? {} : { ownerName });
  secrets.push(key, ...(await readStoredPool(context, owner)).keys.map(({ token }) => token));
}

/** Runs a command and waits for its exit. */
async function ops(args: string[], change: Partial<FixtureSettings> = {}) {
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd,
    env: toEnvironment({ ...home.settings, ...change }),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (part: string) => {
      text[name] += part;
    });
  const [code] = (await once(child, 'close')) as [number | null];
  for (const secret of [...secrets, ...home.settings.encryptionKeys, home.realms.secret])
    expect(text.stdout + text.stderr).not.toContain(secret);
  return { code, ...text };
}

describe('ops keys check', () => {
  it('counts as text and as JSON, and exits with 0 if there is no problem', async () => {
    await storeKeyOf(randomOwner());
    const text = await ops(['keys', 'check']);
    expect(text).toMatchObject({ code: 0, stderr: '' });
    expect(text.stdout).toContain('1 vault record, 1 key\n');
    expect(text.stdout).toContain('key 1 of ENCRYPTION_KEY, used to encrypt: 1\n');
    const json = await ops(['keys', 'check', '--json']);
    expect(JSON.parse(json.stdout)).toEqual({
      ...{ records: 1, records_without_owner: 0, keys: 1, by_ring_key: [1], undecryptable: 0, misplaced: 0 },
      ...{ not_keys: 0, duplicated_ids: 0, canary_ring_key: 1 },
      elsewhere: ['secrets of servers', 'runs and their events'].map((kind) => ({
        ...{ kind, texts: 0, by_ring_key: [0], undecryptable: 0, misplaced: 0 },
      })),
    });
  });

  it('exits with 1 if a key is undecryptable or misplaced', async () => {
    const [one, two] = [randomOwner(), randomOwner()];
    await storeKeyOf(one);
    await storeKeyOf(two);
    const other = await ops(['keys', 'check', '--json'], { encryptionKeys: [fernetKey()] });
    expect(other.code).toBe(1);
    expect(JSON.parse(other.stdout)).toMatchObject({ undecryptable: 2, canary_ring_key: null });
    const moved = (await readStoredPool(context, one)).keys.map(({ value }) => value);
    await editOwnerRecord(context, two, { byok_openai: moved });
    const misplaced = await ops(['keys', 'check', '--json']);
    expect(misplaced.code).toBe(1);
    expect(JSON.parse(misplaced.stdout)).toMatchObject({ keys: 2, misplaced: 1, undecryptable: 0 });
  });
});

describe('ops keys rotate', () => {
  it('reports its work, and afterwards the new key is sufficient', async () => {
    await storeKeyOf(randomOwner());
    const newKey = fernetKey();
    const refused = await ops(['keys', 'rotate'], { encryptionKeys: [newKey] });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('ENCRYPTION_KEY does not fit the stored keys');
    expect(refused.stderr).not.toContain('    at ');
    const done = await ops(['keys', 'rotate'], { encryptionKeys: [newKey, ...home.settings.encryptionKeys] });
    expect(done.code).toBe(0);
    expect(done.stdout).toContain('1 key and 0 other secrets re-encrypted with the first key');
    expect(done.stdout).toContain('You can remove the older keys from ENCRYPTION_KEY.');
    expect((await ops(['keys', 'check'], { encryptionKeys: [newKey] })).code).toBe(0);
  });

  it('exits with 1, names the stored key and what to do, if an older key is still needed', async () => {
    const [one, two] = [randomOwner(), randomOwner()];
    await storeKeyOf(one);
    await storeKeyOf(two);
    const [stolen] = (await readStoredPool(context, one)).keys;
    await editOwnerRecord(context, two, { byok_openai: [stolen?.value ?? ''] });
    const encryptionKeys = [fernetKey(), ...home.settings.encryptionKeys];
    const unfinished = await ops(['keys', 'rotate'], { encryptionKeys });
    expect(unfinished.code).toBe(1);
    expect(unfinished.stdout).toContain(`skipped: ${two}, openai/${stolen?.id} (misplaced)`);
    expect(unfinished.stdout).toContain('--accept-loss');
    expect((await ops(['keys', 'rotate', '--accept-loss'], { encryptionKeys })).code).toBe(0);
  });
});

describe('ops keys import-legacy', () => {
  it('imports keys, names failed ones by user and provider, and exits with 1 then', async () => {
    const legacy = createKeyring(home.settings.encryptionKeys);
    const key = randomKey();
    secrets.push(key);
    const { id, owner } = await createRealmUser(home.realms, {
      byok_openai_key: [legacy.encrypt(key)],
      byok_openrouter_key: [legacy.encrypt(key)],
    });
    const dryRun = await ops(['keys', 'import-legacy', '--dry-run']);
    expect(dryRun.stdout).toContain('1 key would be imported');
    const done = await ops(['keys', 'import-legacy']);
    expect(done.code).toBe(1);
    expect(done.stdout).toContain('1 key imported');
    expect(done.stdout).toContain(`${id}, openrouter: not a valid key of this provider`);
    expect((await readStoredPool(context, owner)).keys).toHaveLength(1);
  });

  it('says what to check if it finds no key', async () => {
    const done = await ops(['keys', 'import-legacy']);
    expect(done).toMatchObject({ code: 0 });
    expect(done.stdout).toContain('Unmanaged Attributes');
  });
});

describe('ops vault purge', () => {
  it('lists owners, and deletes with --yes', async () => {
    const [deleted, ...others] = [
      await createRealmUser(home.realms),
      await createRealmUser(home.realms),
      await createRealmUser(home.realms),
    ];
    for (const user of [deleted, ...others]) await storeKeyOf(user.owner, user.username);
    await (await adminClient(home.realms.main)).users.del({ id: deleted.id });
    const list = await ops(['vault', 'purge']);
    expect(list.code).toBe(0);
    expect(list.stdout).toContain(`${deleted.owner}  ${deleted.username}  1 key\n`);
    expect(list.stdout).toContain('Nothing was deleted. To delete their keys and servers, add --yes.');
    expect((await ops(['vault', 'purge', '--yes'])).stdout).toContain(
      'Deleted the keys and servers of 1 owner.',
    );
    expect((await ops(['vault', 'purge'])).stdout).toContain(
      '0 of 2 owners of keys or servers not found in Keycloak.',
    );
  });

  it('exits with 1 if it refuses because most owners are missing', async () => {
    await storeKeyOf(randomOwner());
    const refused = await ops(['vault', 'purge', '--yes']);
    expect(refused.code).toBe(1);
    expect(refused.stdout).toContain('--even-most');
  });
});

describe('ops vault move', () => {
  it('moves to the configured realm, with the secret of the old client in a file', async () => {
    const owner = randomOwner();
    await storeKeyOf(owner);
    const secretFile = path.join(cwd, 'secret');
    writeFileSync(secretFile, `${home.realms.secret}\n`);
    const change = { vaultRealm: home.realms.vaults[1] ?? '' };
    const args = ['vault', 'move', '--from-secret-file', secretFile];
    const dryRun = await ops([...args, '--dry-run'], change);
    expect(dryRun).toMatchObject({ code: 0 });
    expect(dryRun.stdout).toContain('1 vault record would be copied');
    const unmoved = await ops(['keys', 'check'], change);
    expect(unmoved.code).toBe(1);
    expect(unmoved.stderr).toContain('or move the records there: npm run ops -- vault move');
    const done = await ops(args, change);
    expect(done).toMatchObject({ code: 0 });
    expect(done.stdout).toContain('1 vault record copied, 0 without keys not copied');
    expect(done.stdout).toContain('The new realm is used from now on.\n1 old vault record removed');
    expect((await ops(['keys', 'check'], change)).stdout).toContain('1 vault record, 1 key');
  }, 60_000);

  it('exits with 1 and a message if the app runs, or the file does not exist', async () => {
    await storeKeyOf(randomOwner());
    const app = openDatabase({
      ...{ url: home.settings.databaseUrl, max: 1, applicationName: 'ops-center', log: createLog('silent') },
    });
    await app.run('SELECT 1');
    const secretFile = path.join(cwd, 'secret');
    const change = { vaultRealm: home.realms.vaults[1] ?? '' };
    const args = ['vault', 'move', '--from-secret-file', secretFile];
    expect(await ops(args, change)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('cannot be read'),
    });
    writeFileSync(secretFile, home.realms.secret);
    expect(await ops(args, change)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('The app is running'),
    });
    await app.close();
  });
});

describe('settings of a command', () => {
  /** Writes the stack file of a killed or running start. */
  function writeStack(pid: number, change: Record<string, unknown> = {}): void {
    mkdirSync(path.join(cwd, '.data', 'secrets'), { recursive: true });
    const stack = {
      ...{
        app_url: 'http://localhost:1',
        app_host: '127.0.0.1',
        keycloak_url: 'http://localhost:1',
        database_url: 'postgres://user@127.0.0.1:1/no',
      },
      ...{ admin_user: 'admin', admin_password_file: null, pids: { app: pid, keycloak: pid, postgres: pid } },
      ...change,
    };
    writeFileSync(path.join(cwd, '.data', 'stack.json'), JSON.stringify(stack));
  }

  async function deadPid(): Promise<number> {
    const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' });
    await once(child, 'exit');
    return child.pid ?? 0;
  }

  it('are the configured ones, also if a stack runs or ran from DATA_DIR', async () => {
    await storeKeyOf(randomOwner());
    for (const pid of [await deadPid(), process.pid]) {
      writeStack(pid);
      expect(await ops(['keys', 'check'])).toMatchObject({ code: 0, stderr: '' });
    }
  });

  it('are not taken from a stopped stack, nor from two installations', async () => {
    const configured = toEnvironment(home.settings);
    const { DATABASE_URL: _url, ...withoutDatabase } = configured;
    const { KEYCLOAK_URL: _keycloak, ...withoutKeycloak } = configured;
    const read = (environment: Record<string, string>) => () => getRunningSettings(environment, cwd);
    writeStack(await deadPid());
    for (const environment of [withoutDatabase, withoutKeycloak])
      expect(read(environment)).toThrow('are not running');
    writeStack(process.pid);
    expect(read(withoutDatabase)).toThrow('KEYCLOAK_URL is configured, but the servers running');
    expect(read(withoutKeycloak)).toThrow('DATABASE_URL is configured, but the servers running');
    expect(read(configured)()).toEqual(configured);
    // The running stack was started with this setting.
    writeStack(process.pid, { keycloak_url: configured['KEYCLOAK_URL'], admin_user: null });
    expect(read(withoutDatabase)()).toEqual({
      ...withoutDatabase,
      DATABASE_URL: 'postgres://user@127.0.0.1:1/no',
    });
  });
});

it('replaces control characters in untrusted text for the terminal', () => {
  expect(toPrintable('ann\u001b[2J\u202Eb\nc é 名')).toBe('ann�[2J�b�c é 名');
});
