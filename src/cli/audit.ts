import { pruneAuditEvents } from '../audit/service.ts';
import type { Environment } from '../config/config.ts';
import { SETTINGS } from '../config/settings.ts';
import { StartError } from '../lib/errors.ts';
import { createLog } from '../lib/log.ts';
import { readSetting } from './settings.ts';

/**
 * Deletes audit events older than AUDIT_DAYS, as the role that owns the schema.
 * @throws StartError if MIGRATION_DATABASE_URL is not set or AUDIT_DAYS is not valid.
 */
export async function auditPrune(environment: Environment, print: (text: string) => void): Promise<void> {
  const ownerUrl = readSetting(environment, 'MIGRATION_DATABASE_URL');
  if (ownerUrl === undefined)
    throw new StartError(
      "MIGRATION_DATABASE_URL is not set. Set it to the address with the role that owns the schema: the app's role cannot delete audit events. The quick start prunes them at each start.",
    );
  const days = SETTINGS.AUDIT_DAYS.schema.safeParse(
    readSetting(environment, 'AUDIT_DAYS') ?? SETTINGS.AUDIT_DAYS.fallback,
  );
  if (!days.success) throw new StartError(`AUDIT_DAYS ${days.error.issues[0]?.message ?? 'is not valid'}.`);
  const deleted = await pruneAuditEvents(ownerUrl, days.data, createLog('warn', process.stderr));
  print(`Deleted ${deleted} audit events older than ${days.data} days.`);
}
