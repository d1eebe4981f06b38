import type { Sql } from '../lib/database.ts';

/**
 * Everything that the audit trail tells of. A row is written before the change that it names, so that no
 * change goes untold; one that could not be confirmed gets a second row, `..._unconfirmed`.
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
  'session.started',
  'tier.refused',
] as const;
export type AuditAction = (typeof AUDIT_ACTIONS)[number];

export interface AuditEvent {
  /** Whose things were touched, e.g. `user:<id>`. */
  owner: string;
  /** Who did it, in the same spelling. */
  actor: string;
  action: AuditAction;
  /** What was touched, e.g. `key:openai/3f...`. Ids only, never a secret. */
  object: string;
  requestId: string;
}

/** Writes one row. `sql` is a transaction of `withOwner(event.owner, ...)`, best the one of what it tells. */
export async function recordAudit(sql: Sql, event: AuditEvent): Promise<void> {
  await sql.run(
    'INSERT INTO audit_events (owner, actor, action, object, request_id) VALUES ($1, $2, $3, $4, $5)',
    [event.owner, event.actor, event.action, event.object, event.requestId],
  );
}
