import type { Environment } from '../config.ts';
import { dataDirOf } from './quickstart/data-dir.ts';
import { onLoopback } from './quickstart/ports.ts';
import { createSecrets } from './quickstart/secrets.ts';
import { getStackFile, hasStackFile } from './quickstart/stack-file.ts';
import { layOver, settingOf } from './settings.ts';

/**
 * The settings of this installation, for commands beside it: what is configured, and what `npm start` started.
 * @throws StartError when Keycloak is configured nowhere and nothing runs.
 */
export function settingsOfRunning(environment: Environment, cwd: string): Environment {
  const dataDir = dataDirOf(environment, cwd);
  if (settingOf(environment, 'KEYCLOAK_URL') !== undefined && !hasStackFile(dataDir)) return environment;
  const stack = getStackFile(dataDir);
  const secrets = createSecrets(dataDir);
  const isOwnKeycloak = stack.admin_user !== null;
  return layOver(environment, {
    DATABASE_URL: stack.database_url,
    ...(isOwnKeycloak && {
      KEYCLOAK_URL: stack.keycloak_url,
      KEYCLOAK_INTERNAL_URL: onLoopback(stack.keycloak_url),
      KEYCLOAK_WEB_CLIENT_SECRET: secrets.get('keycloak-web-client'),
      KEYCLOAK_SERVICE_CLIENT_SECRET: secrets.get('keycloak-service-client'),
      KEYCLOAK_VAULT_CLIENT_SECRET: secrets.get('keycloak-vault-client'),
    }),
  });
}
