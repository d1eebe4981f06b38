import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { evidence } from './evidence.ts';
import { withDatabase } from './postgres-and-keycloak.ts';
import { servers } from './servers-in-use.ts';

/** Creates a migrated, empty database (50 ms). It is deleted after the run. */
export async function createDatabase(): Promise<{ appUrl: string; ownerUrl: string }> {
  const name = `test_${randomBytes(8).toString('hex')}`;
  evidence.recordDatabase(name);
  await asSuperuser(
    `CREATE DATABASE ${name} OWNER ops_center_owner TEMPLATE ${servers.template} STRATEGY wal_log`,
  );
  return { appUrl: withDatabase(servers.appUrl, name), ownerUrl: withDatabase(servers.ownerUrl, name) };
}

/** Ends all connections to a database and refuses new ones until the returned function is called. */
export async function blockDatabase(url: string): Promise<() => Promise<void>> {
  const name = new URL(url).pathname.slice(1);
  await asSuperuser(`ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS false`);
  await asSuperuser(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`);
  return () => asSuperuser(`ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS true`);
}

async function asSuperuser(text: string): Promise<void> {
  const client = new pg.Client({ connectionString: servers.superuserUrl });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}
