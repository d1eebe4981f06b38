export { writeAuditEvent } from './events.ts';
export type { AuditAction } from './schema.ts';
export { pruneAuditEvents } from './prune.ts';
export { createRefusalTrail } from './refusals.ts';
