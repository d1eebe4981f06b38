import { z } from 'zod';
import { pageOf } from '../http/page.ts';

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
