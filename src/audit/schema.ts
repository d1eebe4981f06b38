import { z } from 'zod';
import { DayRangeQuery, pageOf, PageQuery } from '../http/page.ts';

const MAX_OBJECT_LENGTH = 300;

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
  'session.ended',
  'tier.refused',
] as const;
export type AuditAction = (typeof AUDIT_ACTIONS)[number];

/** Filters of the list. `object` is compared as a whole. */
export const AuditQuery = z.strictObject({
  ...PageQuery.shape,
  ...DayRangeQuery.shape,
  action: z.enum(AUDIT_ACTIONS, 'must be an action of the audit trail, e.g. key.added').optional(),
  object: z
    .string()
    .min(1, 'must not be empty')
    .max(MAX_OBJECT_LENGTH, `must have ${MAX_OBJECT_LENGTH} characters or fewer`)
    .refine((text) => text.isWellFormed() && !text.includes('\0'), 'must be text without null characters')
    .optional(),
});
export type AuditQuery = z.output<typeof AuditQuery>;

export const AuditPage = pageOf(
  z.object({
    time: z.iso.datetime(),
    actor: z.string(),
    action: z.string(),
    object: z.string(),
    request_id: z.string(),
    /** How many refusals the event stands for; 1 for every other event. */
    count: z.number(),
  }),
);
export type AuditPage = z.output<typeof AuditPage>;
