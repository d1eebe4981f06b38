import type { Environment } from '../config/config.ts';
import { resolveDataDir } from '../dev/quickstart/data-dir.ts';
import { toLoopbackUrl } from '../dev/quickstart/ports.ts';
import { isProcessRunning } from '../dev/quickstart/processes.ts';
import { createSecrets } from '../dev/quickstart/secrets.ts';
import { getStackFile, hasStackFile, type StackFile } from '../dev/quickstart/stack-file.ts';
import { overrideSettings, readSetting } from './settings.ts';
import { StartError } from '../lib/errors.ts';

/**
 * Returns the settings for a command: the configured ones, completed with those of the servers that `npm start`
 * started. Configured settings take precedence, because commands delete and move data.
 * @throws StartError if Keycloak or the database is not configured and nothing runs, or if the running stack
 *   has another configuration.
 */
export function getRunningSettings(environment: Environment, cwd: string): Environment {
  const databaseUrl = readSetting(environment, 'DATABASE_URL');
  const keycloakUrl = readSetting(environment, 'KEYCLOAK_URL');
  if (keycloakUrl !== undefined && databaseUrl !== undefined) return environment;
  const dataDir = resolveDataDir(environment, cwd);
  // Reading the configuration then reports the missing settings.
  if (keycloakUrl !== undefined && !hasStackFile(dataDir)) return environment;
  const stack = getStackFile(dataDir);
  assertSameInstallation(stack, dataDir, { databaseUrl, keycloakUrl });
  const secrets = createSecrets(dataDir);
  const isOwnKeycloak = stack.admin_user !== null && keycloakUrl === undefined;
  return overrideSettings(environment, {
    ...(databaseUrl === undefined && { DATABASE_URL: stack.database_url }),
    ...(isOwnKeycloak && {
      KEYCLOAK_URL: stack.keycloak_url,
      KEYCLOAK_INTERNAL_URL: toLoopbackUrl(stack.keycloak_url),
      KEYCLOAK_WEB_CLIENT_SECRET: secrets.get('keycloak-web-client'),
      KEYCLOAK_SERVICE_CLIENT_SECRET: secrets.get('keycloak-service-client'),
      KEYCLOAK_VAULT_CLIENT_SECRET: secrets.get('keycloak-vault-client'),
    }),
  });
}

/** With the database of one installation and the Keycloak of another, every key would seem to have no owner. */
function assertSameInstallation(
  stack: StackFile,
  dataDir: string,
  configured: { databaseUrl: string | undefined; keycloakUrl: string | undefined },
): void {
  const { app, keycloak, postgres } = stack.pids;
  const servers = [keycloak, postgres].filter((pid) => pid !== null);
  if (![...(servers.length > 0 ? servers : [app])].every((pid) => isProcessRunning(pid))) {
    throw new StartError(
      `The servers of ${dataDir}/stack.json are not running. Start them with \`npm start\`, or configure ` +
        'DATABASE_URL and KEYCLOAK_URL.',
    );
  }
  for (const [name, setting, running] of [
    ['DATABASE_URL', configured.databaseUrl, stack.database_url],
    ['KEYCLOAK_URL', configured.keycloakUrl, stack.keycloak_url],
  ] as const) {
    // The stack file does not have a setting that the app read from a file.
    if (setting === undefined || running === '' || setting === running) continue;
    throw new StartError(
      `${name} is configured, but the servers running from ${dataDir} use another one. Configure both ` +
        'DATABASE_URL and KEYCLOAK_URL, or neither.',
    );
  }
}
