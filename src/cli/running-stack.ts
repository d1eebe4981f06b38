import type { Environment } from '../config/config.ts';
import { resolveDataDir } from '../dev/quickstart/data-dir.ts';
import { toLoopbackUrl } from '../dev/quickstart/ports.ts';
import { createSecrets } from '../dev/quickstart/secrets.ts';
import { getStackFile, hasStackFile, type StackFile } from '../dev/quickstart/stack-file.ts';
import { overrideSettings, readSetting } from './settings.ts';
import { StartError } from './start-error.ts';

/**
 * The settings of this installation, for commands beside it: what is configured, and for what is configured
 * nowhere, what `npm start` started. What is configured always wins, since commands delete and move.
 * @throws StartError when Keycloak or the database is configured nowhere and nothing runs, or when what runs
 *   belongs to another configuration.
 */
export function getRunningSettings(environment: Environment, cwd: string): Environment {
  const databaseUrl = readSetting(environment, 'DATABASE_URL');
  const keycloakUrl = readSetting(environment, 'KEYCLOAK_URL');
  if (keycloakUrl !== undefined && databaseUrl !== undefined) return environment;
  const dataDir = resolveDataDir(environment, cwd);
  // What is missing is then named by whoever reads the settings.
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

/** One half of one installation with the other half of another would make every key look like nobody's. */
function assertSameInstallation(
  stack: StackFile,
  dataDir: string,
  configured: { databaseUrl: string | undefined; keycloakUrl: string | undefined },
): void {
  const { app, keycloak, postgres } = stack.pids;
  const servers = [keycloak, postgres].filter((pid) => pid !== null);
  if (![...(servers.length > 0 ? servers : [app])].every(isAlive)) {
    throw new StartError(
      `What ${dataDir}/stack.json tells of does not run any more: start it with \`npm start\` first, or configure ` +
        'DATABASE_URL and KEYCLOAK_URL.',
    );
  }
  for (const [name, own, running] of [
    ['DATABASE_URL', configured.databaseUrl, stack.database_url],
    ['KEYCLOAK_URL', configured.keycloakUrl, stack.keycloak_url],
  ] as const) {
    // Where the app read it from a file, the stack does not tell it.
    if (own === undefined || running === '' || own === running) continue;
    throw new StartError(
      `${name} is configured, and what runs from ${dataDir} has another: configure both DATABASE_URL and ` +
        'KEYCLOAK_URL, or neither.',
    );
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // It is there, and somebody else's.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
