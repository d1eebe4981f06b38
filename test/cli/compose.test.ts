import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { fetch } from 'undici';
import { addDemoUsers, createComposeEnv, prepareDatabase, writeComposeEnv } from '../../src/cli/compose.ts';
import { readEnvFile } from '../../src/cli/env-file.ts';
import { freePort } from '../support/free-port.ts';
import { readDemo } from '../../src/lib/keycloak/demo-users.ts';
import { compileCache } from '../support/compile-cache.ts';
import { evidence } from '../support/evidence.ts';
import { adminClient, createWebClient, stack } from '../support/stack.ts';
import { withDatabase } from '../support/postgres-and-keycloak.ts';
import { servers } from '../support/servers-in-use.ts';

const print = () => undefined;

describe('The command env', () => {
  let folder: string;
  let file: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'ops-compose-'));
    file = path.join(folder, '.env');
  });
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  it('writes different secrets into a file that only its owner can read', () => {
    writeComposeEnv(file, print);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const values = Object.values(readEnvFile(file)).map(String);
    expect(new Set(values).size).toBe(values.length);
    expect(values.every((value) => value.length >= 43)).toBe(true);
  });

  it('keeps the lines of the file, and adds missing settings', () => {
    writeFileSync(file, 'PORT=4000\nPOSTGRES_PASSWORD=mine\n');
    writeComposeEnv(file, print);
    expect(readFileSync(file, 'utf8')).toMatch(/^PORT=4000\nPOSTGRES_PASSWORD=mine\n/);
    expect(readEnvFile(file)).toMatchObject({ PORT: '4000', POSTGRES_PASSWORD: 'mine' });
    const once = readFileSync(file, 'utf8');
    writeComposeEnv(file, print);
    expect(readFileSync(file, 'utf8')).toBe(once);
  });

  it('prints the names of generated settings, and no value', () => {
    const lines: string[] = [];
    writeComposeEnv(file, (text) => lines.push(text));
    const generated = readEnvFile(file);
    for (const [name, value] of Object.entries(generated)) {
      expect(lines.join('\n')).toContain(name);
      expect(lines.join('\n')).not.toContain(value);
    }
  });

  it('prints the same settings as text', () => {
    writeComposeEnv(file, print);
    writeFileSync(`${file}.printed`, createComposeEnv());
    expect(Object.keys(readEnvFile(`${file}.printed`))).toEqual(Object.keys(readEnvFile(file)));
  });
});

describe('The command prepare-database', () => {
  const suffix = randomBytes(4).toString('hex');
  const names = { app: `app_${suffix}`, owner: `owner_${suffix}`, database: `shipped_${suffix}` };
  const password = {
    app: randomBytes(18).toString('base64url'),
    owner: randomBytes(18).toString('base64url'),
  };
  for (const value of Object.values(password)) evidence.registerSecret('password', value);

  function address(login: 'app' | 'owner'): string {
    const url = new URL(withDatabase(servers.superuserUrl, names.database));
    url.username = names[login];
    url.password = password[login];
    return url.href;
  }
  const environment = () => ({
    SUPERUSER_DATABASE_URL: servers.superuserUrl,
    DATABASE_URL: address('app'),
    MIGRATION_DATABASE_URL: address('owner'),
  });

  async function query(url: string, text: string): Promise<pg.QueryResult> {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    return client.query(text).finally(() => client.end());
  }

  afterEach(async () => {
    await query(servers.superuserUrl, `DROP DATABASE IF EXISTS ${names.database}`);
    for (const role of [names.app, names.owner])
      await query(servers.superuserUrl, `DROP ROLE IF EXISTS ${role}`);
  });

  it('creates an owner that can create tables and an app that cannot, and is idempotent', async () => {
    await prepareDatabase(environment(), print);
    await prepareDatabase(environment(), print);
    await query(address('owner'), 'CREATE TABLE one (id int)');
    await expect(query(address('app'), 'CREATE TABLE two (id int)')).rejects.toThrow('permission denied');
    await expect(query(address('app'), 'SELECT * FROM one')).rejects.toThrow('permission denied');
  });

  it('sets the current password of the address', async () => {
    await prepareDatabase(environment(), print);
    password.app = randomBytes(18).toString('base64url');
    evidence.registerSecret('password', password.app);
    await expect(query(address('app'), 'SELECT 1')).rejects.toThrow('password authentication failed');
    await prepareDatabase(environment(), print);
    expect((await query(address('app'), 'SELECT 1')).rowCount).toBe(1);
  });

  it.each([
    ['another database for the owner', 'MIGRATION_DATABASE_URL', 'o:secret@db/other', 'different databases'],
    [
      'a role that is not a plain name',
      'DATABASE_URL',
      `a%22b:secret@db/${names.database}`,
      'DATABASE_URL must be',
    ],
    ['a database that is not a plain name', 'DATABASE_URL', 'app:secret@db/a%22b', 'DATABASE_URL must be'],
    ['no password', 'DATABASE_URL', `app@db/${names.database}`, 'DATABASE_URL must be'],
  ])('refuses %s with a message that contains no secret', async (_name, setting, address, message) => {
    const wrong = { ...environment(), [setting]: `postgres://${address}` };
    const problem = String(await prepareDatabase(wrong, print).catch(String));
    expect(problem).toContain(message);
    expect(problem).not.toContain('secret@');
  });

  it('refuses to start without a superuser', async () => {
    await expect(prepareDatabase({ ...environment(), SUPERUSER_DATABASE_URL: '' }, print)).rejects.toThrow(
      'SUPERUSER_DATABASE_URL is not set',
    );
  });
});

describe('The command demo-users', () => {
  const environment = () => ({
    KEYCLOAK_URL: 'http://localhost:1',
    KEYCLOAK_INTERNAL_URL: stack.keycloak.url,
    KEYCLOAK_ADMIN_PASSWORD: servers.adminPassword,
    PUBLIC_URL: 'http://localhost:4321',
    INTERNAL_URL: 'http://app:3000',
  });

  it('adds the demo users to the realm, and sets the address of the app in its web client', async () => {
    const client = await createWebClient('http://localhost:1');
    await addDemoUsers({ ...environment(), KEYCLOAK_WEB_CLIENT_ID: client.id }, print);
    const admin = await adminClient();
    for (const { username } of (await readDemo()).users)
      expect(await admin.users.find({ username, exact: true })).toHaveLength(1);
    const [updated] = await admin.clients.find({ clientId: client.id });
    expect(updated?.redirectUris).toEqual(['http://localhost:4321/auth/callback']);
    expect(updated?.attributes?.['backchannel.logout.url']).toBe('http://app:3000/auth/backchannel-logout');
  });

  it('adds no user to a deployment', async () => {
    await expect(addDemoUsers({ ...environment(), DEPLOY_ENV: 'production' }, print)).rejects.toThrow(
      'DEPLOY_ENV is set',
    );
  });

  it('names the setting of a password that Keycloak refuses', async () => {
    const wrong = { ...environment(), KEYCLOAK_ADMIN_PASSWORD: 'wrong' };
    await expect(addDemoUsers(wrong, print)).rejects.toThrow('the password in KEYCLOAK_ADMIN_PASSWORD');
  });
});

describe('The command demo-provider', () => {
  it('responds on loopback like a provider until it is stopped', async () => {
    const port = await freePort();
    const main = path.resolve(import.meta.dirname, '..', '..', 'src', 'cli', 'main.ts');
    const child = spawn(process.execPath, [main, 'demo-provider', '--port', String(port)], {
      cwd: tmpdir(),
      env: { PATH: process.env['PATH'] ?? '', ...compileCache() },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = once(child, 'exit');
    await once(child.stdout, 'data');
    const headers = { authorization: `Bearer demo-${randomBytes(12).toString('hex')}` };
    const answer = await fetch(`http://127.0.0.1:${port}/v1/models`, { headers });
    expect(answer.status).toBe(200);
    await answer.text();
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
  });
});
