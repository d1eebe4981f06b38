import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { preparePostgresLocation } from '../../../src/dev/quickstart/postgres/location.ts';
import {
  startPostgres,
  type PostgresRole,
  type RunningPostgres,
} from '../../../src/dev/quickstart/postgres/postgres.ts';
import { isProcessRunning } from '../../../src/dev/quickstart/processes.ts';
import { createSecrets } from '../../../src/dev/quickstart/secrets.ts';
import { canEnter } from '../../../src/dev/quickstart/unprivileged.ts';
import { runMigrations } from '../../../src/lib/postgres/migrations.ts';

let dataDir: string;
let postgres: RunningPostgres;

const start = (port = 0) =>
  startPostgres({ dataDir, port, secrets: createSecrets(dataDir), durable: false, note: () => undefined });

async function query(role: PostgresRole, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: postgres.urlFor(role) });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

beforeAll(async () => {
  dataDir = mkdtempSync(path.join(tmpdir(), 'ops-postgres-'));
  chmodSync(dataDir, 0o755);
  postgres = await start();
  await runMigrations({ ownerUrl: postgres.urlFor('owner'), appRole: 'ops_center' });
});
afterAll(async () => {
  await postgres.stop();
  rmSync(dataDir, { recursive: true });
});

describe('the Postgres of the quick start', () => {
  it('listens on loopback TCP only and requires a password', async () => {
    const rows = await query(
      'superuser',
      "SELECT name, setting FROM pg_settings WHERE name IN ('listen_addresses', 'unix_socket_directories') ORDER BY name",
    );
    expect(rows.map((row) => row['setting'])).toEqual(['127.0.0.1', '']);
    const methods = await query('superuser', 'SELECT DISTINCT auth_method FROM pg_hba_file_rules');
    expect(methods).toEqual([{ auth_method: 'scram-sha-256' }]);
  });

  it('gives no login superuser privileges', async () => {
    const rows = await query(
      'superuser',
      "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname IN ('ops_center', 'ops_center_owner', 'ops_center_app')",
    );
    expect(rows).toHaveLength(3);
    for (const row of rows) {
      expect(row).toMatchObject({
        rolsuper: false,
        rolcreaterole: false,
        rolcreatedb: false,
        rolbypassrls: false,
      });
    }
  });

  it.each([
    'CREATE TABLE mine (id int)',
    'ALTER TABLE owners DISABLE ROW LEVEL SECURITY',
    'DROP TABLE sessions',
    'UPDATE schema_migrations SET name = name',
    'SET ROLE ops_center_owner',
  ])('does not let the app %s', async (statement) => {
    await expect(query('app', statement)).rejects.toThrow(/permission denied|must be owner/);
  });

  it('lets the app read which migrations were run', async () => {
    const rows = await query('app', 'SELECT name FROM schema_migrations');
    expect(rows.length).toBeGreaterThan(0);
  });

  it('replaces a server that a killed start left running, and keeps its data', async () => {
    await query('owner', 'CREATE TABLE kept AS SELECT 42 AS answer');
    const orphan = postgres;
    postgres = await start();
    expect(isProcessRunning(orphan.pid)).toBe(false);
    expect(await query('owner', 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
  });

  it('starts after its server was killed', async () => {
    process.kill(postgres.pid, 'SIGKILL');
    await postgres.ended;
    postgres = await start();
    expect(await query('app', 'SELECT 1 AS up')).toEqual([{ up: 1 }]);
  });

  it('starts if the process id in its pid file belongs to another process, and does not stop that process', async () => {
    await postgres.stop();
    const { folder, runAs } = preparePostgresLocation(dataDir);
    const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], {
      stdio: 'ignore',
      ...runAs,
    });
    await once(other, 'spawn');
    writeFileSync(path.join(folder, 'data', 'postmaster.pid'), `${other.pid}\n${folder}/data\n`);
    try {
      postgres = await start();
      expect(isProcessRunning(other.pid ?? 0)).toBe(true);
    } finally {
      other.kill('SIGKILL');
      await once(other, 'exit');
    }
  });

  it('names POSTGRES_PORT if its port is in use', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    await postgres.stop();
    try {
      await expect(start((other.address() as AddressInfo).port)).rejects.toThrow(/set POSTGRES_PORT/);
    } finally {
      other.close();
      await once(other, 'close');
      postgres = await start();
    }
  });
});

describe('the folders of the unprivileged user', () => {
  const unprivileged = { uid: 65_534, gid: 65_534 };

  it('cannot be reached below a folder that it cannot enter', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'ops-closed-'));
    try {
      chmodSync(folder, 0o700);
      expect(canEnter(path.join(folder, 'below', 'not-yet-there'), unprivileged)).toBe(false);
      expect(canEnter(folder, undefined)).toBe(true);
      chmodSync(folder, 0o711);
      expect(canEnter(path.join(folder, 'below', 'not-yet-there'), unprivileged)).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
