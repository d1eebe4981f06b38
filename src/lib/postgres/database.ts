import pg from 'pg';
import type { ZodType } from 'zod';
import { AppError, databaseUnavailable } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Owner } from '../owner.ts';

export interface Sql {
  /** Runs a query and parses each row with `schema`. */
  rows<T>(schema: ZodType<T>, text: string, values?: unknown[]): Promise<T[]>;
  /** Runs a statement. @returns the number of affected rows. */
  run(text: string, values?: unknown[]): Promise<number>;
}

/** One connection, reserved for a piece of work. */
export interface DatabaseConnection extends Sql {
  /** Commits when `work` resolves, rolls back when it throws. */
  transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T>;
  /** A transaction that can read and write only the rows of `owner` (row-level security). */
  withOwner<T>(owner: Owner, work: (sql: Sql) => Promise<T>): Promise<T>;
}

export interface Database extends DatabaseConnection {
  /** Reserves one connection for `work`. It is discarded after an error that may leave it unusable. */
  withConnection<T>(work: (connection: DatabaseConnection) => Promise<T>): Promise<T>;
  /** The pool itself, for libraries that need one (the session store). */
  readonly pool: pg.Pool;
  close(): Promise<void>;
}

export interface DatabaseOptions {
  url: string;
  /** Maximum number of connections. */
  max: number;
  applicationName: string;
  log: Log;
}

/** Creates a pool, which connects on the first query. Connection errors are thrown as `database_unavailable`. */
export function createDatabase(options: DatabaseOptions): Database {
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.max,
    application_name: options.applicationName,
    connectionTimeoutMillis: 5_000,
    query_timeout: 15_000,
    keepAlive: true,
  });
  // Without a listener, an idle connection that the server closes would end the process.
  pool.on('error', (error) => {
    options.log.warn({ err: error }, 'idle database connection lost');
  });

  async function withConnection<T>(work: (connection: DatabaseConnection) => Promise<T>): Promise<T> {
    // Also a server that refuses the connection is unavailable, whatever its SQLSTATE: a restored database, for example.
    const client = await pool.connect().catch((error: unknown) => {
      throw databaseUnavailable(error);
    });
    let failure: unknown;
    const ignore = () => undefined;
    client.on('error', ignore);
    try {
      return await work(toDatabaseConnection(client));
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      client.off('error', ignore);
      client.release(failure !== undefined && !keepsConnectionUsable(failure));
    }
  }

  return {
    rows: (schema, text, values) => withConnection((connection) => connection.rows(schema, text, values)),
    run: (text, values) => withConnection((connection) => connection.run(text, values)),
    withConnection,
    transaction: (work) => withConnection((connection) => connection.transaction(work)),
    withOwner: (owner, work) => withConnection((connection) => connection.withOwner(owner, work)),
    pool,
    close: () => pool.end(),
  };
}

function toSql(client: pg.ClientBase): Sql {
  async function query(text: string, values: unknown[] = []): Promise<pg.QueryResult> {
    try {
      return await client.query(text, values);
    } catch (error) {
      throw toDatabaseError(error);
    }
  }
  return {
    rows: async (schema, text, values) => (await query(text, values)).rows.map((row) => schema.parse(row)),
    run: async (text, values) => (await query(text, values)).rowCount ?? 0,
  };
}

function toDatabaseConnection(client: pg.ClientBase): DatabaseConnection {
  const sql = toSql(client);
  async function transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    await sql.run('BEGIN');
    try {
      const result = await work(sql);
      await sql.run('COMMIT');
      return result;
    } catch (error) {
      await sql.run('ROLLBACK').catch(() => undefined);
      throw error;
    }
  }
  return {
    ...sql,
    transaction,
    withOwner: (owner, work) =>
      transaction(async (inside) => {
        await inside.run("SELECT set_config('ops_center.owner', $1, true)", [owner]);
        return work(inside);
      }),
  };
}

/** True for errors after which the connection is usable: a statement that Postgres refused, or our own AppErrors. */
function keepsConnectionUsable(error: unknown): boolean {
  return error instanceof AppError
    ? error.code !== 'database_unavailable'
    : error instanceof pg.DatabaseError;
}

/**
 * Converts errors of the connection and of a server that shuts down to 503. Errors in our statements stay as they are.
 * SQLSTATE classes: 08 connection, 53 resources, 57P admin shutdown
 * (PostgreSQL documentation, appendix A).
 */
function toDatabaseError(error: unknown): unknown {
  const isOurs = error instanceof pg.DatabaseError && !/^(08|53|57P)/.test(error.code ?? '');
  if (isOurs) return error;
  return databaseUnavailable(error);
}

/** SQLSTATE 55P03, lock_not_available (PostgreSQL documentation, appendix A). */
export function isLockTimeout(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.code === '55P03';
}
