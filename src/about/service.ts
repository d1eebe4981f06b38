import { PACKAGE_VERSION } from '../config/version.ts';
import type { About } from './schema.ts';

/** The part of the configuration that users may know. */
export interface Installation {
  mode: 'local' | 'deployed';
  publicUrl: string;
  keycloak: { url: string; realm: string };
  localExecution: boolean;
  auditDays: number;
  usageDays: number;
  runs: { historyDays: number };
}

export function describeInstallation(config: Installation): About {
  const { mode, publicUrl, keycloak, localExecution, auditDays, usageDays, runs } = config;
  return {
    version: PACKAGE_VERSION,
    mode,
    public_url: publicUrl,
    realm: keycloak.realm,
    account_url: `${keycloak.url}/realms/${keycloak.realm}/account`,
    local_execution: localExecution,
    retention: { audit_days: auditDays, usage_days: usageDays, run_history_days: runs.historyDays },
  };
}
