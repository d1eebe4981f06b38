import { z } from 'zod';
import { SCOPES, type Scope } from '../http/principal.ts';
import { lockUntilCommit } from '../lib/postgres/advisory-lock.ts';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';
import type { TokenView } from './schema.ts';

/** NOTIFY channel for deleted tokens; the payload is the token's id. A trigger of the table notifies. */
export const TOKENS_CHANNEL = 'ops_center_tokens';

/** What a request needs of a token. */
export interface StoredToken {
  id: string;
  owner: Owner;
  scopes: ReadonlySet<Scope>;
  models: readonly string[] | null;
  keyIds: readonly string[] | null;
  expiresAt: Date | null;
}

const FoundRow = z
  .object({
    id: z.string(),
    owner: OwnerText,
    scopes: z.array(z.enum(SCOPES)),
    models: z.array(z.string()).nullable(),
    key_ids: z.array(z.string()).nullable(),
    expires_at: z.date().nullable(),
  })
  .transform(({ key_ids: keyIds, expires_at: expiresAt, scopes, ...row }): StoredToken => ({
    ...row,
    scopes: new Set(scopes),
    keyIds,
    expiresAt,
  }));

const ViewRow = z
  .object({
    id: z.string(),
    name: z.string(),
    prefix: z.string(),
    scopes: z.array(z.enum(SCOPES)),
    models: z.array(z.string()).nullable(),
    key_ids: z.array(z.string()).nullable(),
    created_at: z.date(),
    expires_at: z.date().nullable(),
    last_used_at: z.date().nullable(),
    last_client: z.string().nullable(),
    last_status: z.number().nullable(),
  })
  .transform((row): TokenView => ({
    ...row,
    limits: null,
    created_at: row.created_at.toISOString(),
    expires_at: row.expires_at?.toISOString() ?? null,
    last_used_at: row.last_used_at?.toISOString() ?? null,
  }));

const VIEW_COLUMNS = `id, name, prefix, scopes, models, key_ids, created_at, expires_at, last_used_at, last_client,
  last_status`;

const IdRow = z.object({ id: z.string() });

/** Finds the token with this SHA-256, of any owner; undefined when there is none or it has expired. */
export async function findToken(database: Database, sha256: Buffer): Promise<StoredToken | undefined> {
  const rows = await database.rows(FoundRow, 'SELECT * FROM find_personal_token($1)', [sha256]);
  return rows[0];
}

/** Those of the ids whose token exists and has not expired. */
export async function listValidTokenIds(database: Database, ids: readonly string[]): Promise<Set<string>> {
  const rows = await database.rows(IdRow, 'SELECT valid_personal_tokens($1) AS id', [ids]);
  return new Set(rows.map(({ id }) => id));
}

export async function listTokenOwners(database: Database): Promise<Owner[]> {
  const rows = await database.rows(z.object({ owner: OwnerText }), 'SELECT owners_of_tokens() AS owner');
  return rows.map(({ owner }) => owner);
}

/** The tokens of the transaction's owner, in the order of creation. */
export function listTokens(sql: Sql): Promise<TokenView[]> {
  return sql.rows(
    ViewRow,
    `SELECT ${VIEW_COLUMNS} FROM personal_tokens WHERE owner = current_owner() ORDER BY created_at, id`,
  );
}

/** Locks an owner's tokens until the end of the transaction. Their number is checked under this lock. */
export function lockTokens(sql: Sql, owner: Owner): Promise<void> {
  return lockUntilCommit(sql, `ops-center tokens ${owner}`);
}

/** The number of the owner's tokens that have not expired. */
export async function countUnexpiredTokens(sql: Sql): Promise<number> {
  const [row] = await sql.rows(
    z.object({ count: z.coerce.number() }),
    `SELECT count(*) FROM personal_tokens
     WHERE owner = current_owner() AND (expires_at IS NULL OR expires_at > now())`,
  );
  return row?.count ?? 0;
}

/** Deletes the owner's expired tokens except the `kept` ones that expired last. */
export async function deleteOldestExpiredTokens(sql: Sql, kept: number): Promise<void> {
  await sql.run(
    `DELETE FROM personal_tokens WHERE id IN (
       SELECT id FROM personal_tokens WHERE owner = current_owner() AND expires_at <= now()
       ORDER BY expires_at DESC OFFSET $1)`,
    [kept],
  );
}

/** A token to be stored. */
export interface NewToken {
  id: string;
  owner: Owner;
  sha256: Buffer;
  name: string;
  prefix: string;
  scopes: readonly Scope[];
  models: readonly string[] | null;
  keyIds: readonly string[] | null;
  expiresAt: string | null;
}

export async function insertToken(sql: Sql, token: NewToken): Promise<TokenView> {
  const { id, owner, sha256, name, prefix, scopes, models, keyIds, expiresAt } = token;
  const [row] = await sql.rows(
    ViewRow,
    `INSERT INTO personal_tokens (id, owner, token_sha256, name, prefix, scopes, models, key_ids, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING ${VIEW_COLUMNS}`,
    [id, owner, sha256, name, prefix, scopes, models, keyIds, expiresAt],
  );
  if (row === undefined) throw new Error('an insert without a row');
  return row;
}

/** Deletes a token of the transaction's owner. @returns false when there is none. */
export async function deleteToken(sql: Sql, id: string): Promise<boolean> {
  const deleted = await sql.run('DELETE FROM personal_tokens WHERE id = $1 AND owner = current_owner()', [
    id,
  ]);
  return deleted > 0;
}

/** The last use of a token. */
export interface TokenUse {
  client: string | null;
  status: number | null;
}

/** Writes the last use of a token, unless a process has written one within the last minute. */
export async function writeTokenUse(sql: Sql, id: string, { client, status }: TokenUse): Promise<void> {
  await sql.run(
    `UPDATE personal_tokens SET last_used_at = now(), last_client = $2, last_status = $3
     WHERE id = $1 AND owner = current_owner()
       AND (last_used_at IS NULL OR last_used_at <= now() - interval '1 minute')`,
    [id, client, status],
  );
}
