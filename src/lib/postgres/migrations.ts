import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { runner } from 'node-pg-migrate';
import pg from 'pg';

/** Folder of the SQL files; the path is correct from the source and from the built server. */
export const MIGRATIONS_FOLDER = path.join(import.meta.dirname, '..', '..', '..', 'migrations');
const MIGRATIONS_TABLE = 'schema_migrations';
const APP_GROUP = 'ops_center_app';

export interface MigrationOptions {
  /** Connection string of the role that owns the schema. */
  ownerUrl: string;
  /** The app's login; it becomes a member of `ops_center_app`. Undefined: membership is not changed. */
  appRole?: string | undefined;
}

/**
 * Runs the pending migrations in one transaction. Concurrent calls run one after the other.
 * @returns the names of the applied migrations, in order.
 * @throws the database's error; nothing is changed then.
 */
export async function runMigrations(options: MigrationOptions): Promise<string[]> {
  const client = new pg.Client({
    connectionString: options.ownerUrl,
    application_name: 'ops-center migrations',
    connectionTimeoutMillis: 10_000,
  });
  await client.connect();
  try {
    const run = await runner({
      dbClient: client,
      dir: MIGRATIONS_FOLDER,
      direction: 'up',
      migrationsTable: MIGRATIONS_TABLE,
      checkOrder: true,
      advisoryLockMode: 'wait',
      logger: SILENT,
    });
    // The app reads this table to check for pending migrations.
    await client.query(`GRANT SELECT ON ${MIGRATIONS_TABLE} TO ${APP_GROUP}`);
    if (options.appRole !== undefined) await ensureMember(client, options.appRole);
    return run.map((migration) => migration.name);
  } finally {
    await client.end();
  }
}

/**
 * Lists the migrations that were not yet applied, in order.
 * @param query runs SQL on the database; the app's role is enough.
 */
export async function listPendingMigrations(
  query: (text: string) => Promise<readonly { name: string }[]>,
): Promise<string[]> {
  const known = (await readdir(MIGRATIONS_FOLDER))
    .filter((file) => file.endsWith('.sql'))
    .map((file) => path.basename(file, '.sql'))
    .sort();
  const [table] = await query(`SELECT coalesce(to_regclass('public.${MIGRATIONS_TABLE}')::text, '') AS name`);
  if (table === undefined || table.name === '') return known;
  const done = new Set((await query(`SELECT name FROM ${MIGRATIONS_TABLE}`)).map((row) => row.name));
  return known.filter((name) => !done.has(name));
}

async function ensureMember(client: pg.Client, appRole: string): Promise<void> {
  const { rows } = await client.query<{ member: boolean }>(
    `SELECT pg_has_role($1, '${APP_GROUP}', 'MEMBER') AS member`,
    [appRole],
  );
  if (rows[0]?.member === true) return;
  await client.query(`GRANT ${APP_GROUP} TO ${client.escapeIdentifier(appRole)}`);
}

const ignore = () => undefined;
const SILENT = { debug: ignore, info: ignore, warn: ignore, error: ignore };
