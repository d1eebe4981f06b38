import { z } from 'zod';

/** `cursor` is the `next_cursor` of an earlier page. */
export const AuditQuery = z.strictObject({
  cursor: z
    .string()
    .regex(/^[1-9]\d{0,17}$/, 'must be the next_cursor of an earlier page')
    .optional(),
  limit: z.coerce
    .number({ error: 'must be a whole number from 1 to 200' })
    .int('must be a whole number from 1 to 200')
    .min(1, 'must be a whole number from 1 to 200')
    .max(200, 'must be a whole number from 1 to 200')
    .default(50),
});
export type AuditQuery = z.output<typeof AuditQuery>;

export const AuditPage = z.object({
  /** Newest first. */
  data: z.array(
    z.object({
      time: z.iso.datetime(),
      actor: z.string(),
      action: z.string(),
      object: z.string(),
      request_id: z.string(),
    }),
  ),
  /** Null on the last page. */
  next_cursor: z.string().nullable(),
});
export type AuditPage = z.output<typeof AuditPage>;
