import { z } from 'zod';
import { toPage } from '../http/page.ts';
import type { Sql } from '../lib/postgres/database.ts';
import type { Owner } from '../lib/owner.ts';
import type { AuditAction, AuditPage, AuditQuery } from './schema.ts';

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
 * Lists one page of an owner's events, newest first. All filters must match.
 * @param sql a transaction of `withOwner`, which selects the owner.
 */
export async function listAuditEvents(sql: Sql, query: AuditQuery): Promise<AuditPage> {
  const { cursor, limit, action, object, from, to } = query;
  const rows = await sql.rows(
    AuditRow,
    `SELECT id, time, actor, action, object, request_id, count FROM audit_events
     WHERE owner = current_owner() AND ($1::bigint IS NULL OR id < $1::bigint)
       AND ($3::text IS NULL OR action = $3) AND ($4::text IS NULL OR object = $4)
       AND ($5::date IS NULL OR time >= $5::date::timestamp AT TIME ZONE 'UTC')
       AND ($6::date IS NULL OR time < ($6::date + 1)::timestamp AT TIME ZONE 'UTC')
     ORDER BY id DESC LIMIT $2`,
    [cursor, limit + 1, action, object, from, to].map((value) => value ?? null),
  );
  return toPage(
    rows,
    limit,
    ({ id }) => id,
    ({ id: _id, time, ...event }) => ({ time: time.toISOString(), ...event }),
  );
}
