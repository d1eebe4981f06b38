import { z } from 'zod';
import { AppError, notFound } from '../lib/errors.ts';
import { lockUntilCommit } from '../lib/postgres/advisory-lock.ts';
import type { Sql } from '../lib/postgres/database.ts';
import type { HostKey } from '../lib/ssh/host-key.ts';
import {
  SERVER_TYPES,
  SERVER_TEST_STATUSES,
  type ServerType,
  type ServerTestStatus,
} from '../runners/runner.ts';
import { ServerTestDetails } from './schema.ts';

/** A server as it is stored: the secret members of its configuration are encrypted. */
export interface StoredServer {
  id: string;
  name: string;
  serverType: ServerType;
  config: Record<string, unknown>;
  workspacePath: string | null;
  isDefault: boolean;
  isActive: boolean;
  /** Whether personal tokens may run code on it. */
  tokenRuns: boolean;
  version: number;
  hostKey: HostKey | null;
  lastTestedAt: Date | null;
  lastUsedAt: Date | null;
  testStatus: ServerTestStatus;
  testDetails: StoredTestDetails | null;
  createdAt: Date;
  updatedAt: Date;
}

const StoredTestDetails = ServerTestDetails.extend({ message: z.string() });
type StoredTestDetails = z.output<typeof StoredTestDetails>;

/** The members of a server that its owner sets. */
export type ServerSettings = Pick<
  StoredServer,
  'name' | 'config' | 'workspacePath' | 'isDefault' | 'isActive' | 'tokenRuns' | 'hostKey'
>;

/** The stored result of a test. */
interface StoredTestResult {
  status: ServerTestStatus;
  details: StoredTestDetails;
}

/** Values that do not parse after a manual edit count as missing. Without its host key a secret does not decrypt. */
const ServerRow = z
  .object({
    id: z.string(),
    name: z.string(),
    server_type: z.enum(SERVER_TYPES),
    connection_config: z.record(z.string(), z.unknown()),
    workspace_path: z.string().nullable(),
    is_default: z.boolean(),
    is_active: z.boolean(),
    token_runs: z.boolean(),
    version: z.number(),
    host_key: z.strictObject({ type: z.string(), fingerprint: z.string() }).nullable().catch(null),
    last_tested_at: z.date().nullable(),
    last_used_at: z.date().nullable(),
    test_status: z.enum(SERVER_TEST_STATUSES).catch('untested'),
    test_details: StoredTestDetails.nullable().catch(null),
    created_at: z.date(),
    updated_at: z.date(),
  })
  .transform((row): StoredServer => ({
    id: row.id,
    name: row.name,
    serverType: row.server_type,
    config: row.connection_config,
    workspacePath: row.workspace_path,
    isDefault: row.is_default,
    isActive: row.is_active,
    tokenRuns: row.token_runs,
    version: row.version,
    hostKey: row.host_key,
    lastTestedAt: row.last_tested_at,
    lastUsedAt: row.last_used_at,
    testStatus: row.test_status,
    testDetails: row.test_details,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }));

const COLUMNS = `id, name, server_type, connection_config, workspace_path, is_default, is_active, token_runs, version, host_key,
  last_tested_at, last_used_at, test_status, test_details, created_at, updated_at`;

/**
 * The owner's rows. Row-level security has the same filter; the second one protects the servers of all users against
 * a mistake in the first. Matches no row when the transaction has no owner.
 */
const OWNER_FILTER = 'owner = current_owner()';

/**
 * Locks an owner's servers until the end of the transaction. The limit, the single default and the jump chains are
 * checked under this lock.
 */
export async function lockServers(sql: Sql, userId: string): Promise<void> {
  await lockUntilCommit(sql, `ops-center servers ${userId}`);
}

/** All servers of the transaction's owner, in the order of creation. */
export async function listServers(sql: Sql): Promise<StoredServer[]> {
  return sql.rows(
    ServerRow,
    `SELECT ${COLUMNS} FROM user_execution_servers WHERE ${OWNER_FILTER} ORDER BY created_at, id`,
  );
}

/** Adds a server with version 1. */
export async function insertServer(
  sql: Sql,
  userId: string,
  server: ServerSettings & Pick<StoredServer, 'id' | 'serverType'>,
): Promise<StoredServer> {
  return getOnlyRow(
    await sql.rows(
      ServerRow,
      `INSERT INTO user_execution_servers
         (id, user_id, server_type, name, connection_config, workspace_path, is_default, is_active, host_key, token_runs)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING ${COLUMNS}`,
      [server.id, userId, server.serverType, ...toColumnValues(server)],
    ),
  );
}

/**
 * Stores new settings and raises the version.
 * @param isTestStillValid false when the last test does not apply to the new settings; its result is deleted.
 */
export async function updateServer(
  sql: Sql,
  id: string,
  settings: ServerSettings,
  isTestStillValid: boolean,
): Promise<StoredServer> {
  return getOnlyRow(
    await sql.rows(
      ServerRow,
      `UPDATE user_execution_servers SET
         name = $2, connection_config = $3, workspace_path = $4, is_default = $5, is_active = $6, host_key = $7,
         token_runs = $8,
         version = version + 1, updated_at = now(),
         last_tested_at = CASE WHEN $9 THEN last_tested_at END,
         test_status = CASE WHEN $9 THEN test_status ELSE 'untested' END,
         test_details = CASE WHEN $9 THEN test_details END
       WHERE id = $1 AND ${OWNER_FILTER} RETURNING ${COLUMNS}`,
      [id, ...toColumnValues(settings), isTestStillValid],
    ),
  );
}

/** Clears `is_default` of the owner's default server. */
export async function clearDefault(sql: Sql): Promise<void> {
  await sql.run(
    `UPDATE user_execution_servers SET is_default = false, version = version + 1, updated_at = now()
     WHERE is_default AND ${OWNER_FILTER}`,
  );
}

/**
 * Replaces the ciphertext of a secret and nothing else; the version stays, because the owner's settings stay.
 * @returns false when the stored ciphertext is not `from`.
 */
export async function replaceSecretCiphertext(
  sql: Sql,
  id: string,
  { field, from, to }: { field: string; from: string; to: string },
): Promise<boolean> {
  const updated = await sql.run(
    `UPDATE user_execution_servers
     SET connection_config = jsonb_set(connection_config, ARRAY[$2::text], to_jsonb($4::text))
     WHERE id = $1 AND ${OWNER_FILTER} AND connection_config ->> $2::text = $3`,
    [id, field, from, to],
  );
  return updated > 0;
}

export async function deleteServer(sql: Sql, id: string): Promise<void> {
  await sql.run(`DELETE FROM user_execution_servers WHERE id = $1 AND ${OWNER_FILTER}`, [id]);
}

/** Stores the result of a test, unless the server was changed or deleted in the meantime. */
export async function saveServerTest(
  sql: Sql,
  { id, version }: Pick<StoredServer, 'id' | 'version'>,
  { status, details }: StoredTestResult,
): Promise<void> {
  await sql.run(
    `UPDATE user_execution_servers SET last_tested_at = now(), test_status = $3, test_details = $4
     WHERE id = $1 AND ${OWNER_FILTER} AND version = $2`,
    [id, version, status, JSON.stringify(details)],
  );
}

/** @throws AppError `not_found` (404). */
export function getServer(servers: readonly StoredServer[], id: string): StoredServer {
  const server = servers.find((each) => each.id === id);
  if (server === undefined) throw notFound('This server');
  return server;
}

/** @throws AppError `no_default_server` (404). */
export function getDefaultServer(servers: readonly StoredServer[]): StoredServer {
  const server = servers.find((each) => each.isDefault);
  if (server !== undefined) return server;
  throw new AppError(
    'no_default_server',
    servers.length === 0
      ? 'You have no server yet. Add one with POST /api/v1/execution-servers.'
      : 'None of your servers is the default. Choose one with PUT and is_default: true.',
  );
}

/** Sets the time of the last use to now. */
export async function saveServerUse(sql: Sql, id: string): Promise<void> {
  await sql.run(`UPDATE user_execution_servers SET last_used_at = now() WHERE id = $1 AND ${OWNER_FILTER}`, [
    id,
  ]);
}

function toColumnValues(settings: ServerSettings): unknown[] {
  const { name, config, workspacePath, isDefault, isActive, tokenRuns, hostKey } = settings;
  const hostKeyJson = hostKey === null ? null : JSON.stringify(hostKey);
  return [name, JSON.stringify(config), workspacePath, isDefault, isActive, hostKeyJson, tokenRuns];
}

function getOnlyRow<T>([row]: T[]): T {
  if (row === undefined) throw new Error('the row is gone although its owner is locked');
  return row;
}
