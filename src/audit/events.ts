import { z } from 'zod';
import { toPage, type PageQuery } from '../http/page.ts';
import type { Sql } from '../lib/postgres/database.ts';
import type { Owner } from '../lib/owner.ts';
import type { AuditPage } from './schema.ts';

/**
 * All actions in the audit trail. A row is written before its change or in the same transaction, so that every change
 * has one. `run.started` is written by the SQL function `submit_run` (`runs/queue-store.ts`), all others by
 * `writeAuditEvent` (`run.cancelled` in `runs/user-runs.ts`). A change that
 * could not be confirmed gets a second row, `..._unconfirmed`. A write that may have overwritten a
 * concurrent save by an administrator gets the second row `key.write_collided`.
 */
export const AUDIT_ACTIONS = [
  'key.added',
  'key.add_unconfirmed',
  'key.replaced',
  'key.replace_unconfirmed',
  'key.updated',
  'key.update_unconfirmed',
  'key.deleted',
  'key.delete_unconfirmed',
  'key.resealed',
  'key.reseal_unconfirmed',
  'key.imported',
  'key.import_unconfirmed',
  'key.tested',
  'key.write_collided',
  'server.added',
  'server.updated',
  'server.deleted',
  'server.tested',
  'server.host_key_confirmed',
  'vault.purged',
  'vault.purge_unconfirmed',
  'run.started',
  'run.cancelled',
  'token.created',
  'token.revoked',
  'session.started',
  'tier.refused',
] as const;
export type AuditAction = (typeof AUDIT_ACTIONS)[number];

export interface AuditEvent {
  owner: Owner;
  /** An owner, or `system:<component>`. */
  actor: string;
  action: AuditAction;
  /** What was changed, e.g. `key:openai/3f...`. Ids only, never a secret. */
  object: string;
  requestId: string;
}

const IdRow = z.object({ id: z.string() });

/**
 * Writes one row.
 * @returns its id.
 * @param sql a transaction of `withOwner(event.owner, ...)`, if possible the one that makes the change.
 */
export async function writeAuditEvent(sql: Sql, event: AuditEvent): Promise<string> {
  const [row] = await sql.rows(
    IdRow,
    `INSERT INTO audit_events (owner, actor, action, object, request_id) VALUES ($1, $2, $3, $4, $5)
     RETURNING id`,
    [event.owner, event.actor, event.action, event.object, event.requestId],
  );
  if (row === undefined) throw new Error('an insert without a row');
  return row.id;
}

const AuditRow = z.object({
  id: z.string(),
  time: z.date(),
  actor: z.string(),
  action: z.string(),
  object: z.string(),
  request_id: z.string(),
  count: z.number(),
});

/**
 * Lists one page of an owner's events, newest first.
 * @param sql a transaction of `withOwner`, which selects the owner.
 */
export async function listAuditEvents(sql: Sql, { cursor, limit }: PageQuery): Promise<AuditPage> {
  const rows = await sql.rows(
    AuditRow,
    `SELECT id, time, actor, action, object, request_id, count FROM audit_events
     WHERE owner = current_owner() AND ($1::bigint IS NULL OR id < $1::bigint)
     ORDER BY id DESC LIMIT $2`,
    [cursor ?? null, limit + 1],
  );
  return toPage(
    rows,
    limit,
    ({ id }) => id,
    ({ id: _id, time, ...event }) => ({ time: time.toISOString(), ...event }),
  );
}
