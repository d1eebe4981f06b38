export { writeAuditEvent, type AuditAction } from './events.ts';
export { pruneAuditEvents } from './prune.ts';
export { createRefusalTrail } from './refusals.ts';
