import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Environment } from '../config/config.ts';
import { APP_SECRETS, randomSecret, type SettingGenerators } from './env-file.ts';

/** All secrets that the services of `docker-compose.yml` share. */
export const COMPOSE_SECRETS = {
  ...APP_SECRETS,
  POSTGRES_PASSWORD: randomSecret,
  POSTGRES_OWNER_PASSWORD: randomSecret,
  POSTGRES_APP_PASSWORD: randomSecret,
  KEYCLOAK_ADMIN_PASSWORD: randomSecret,
  KEYCLOAK_WEB_CLIENT_SECRET: randomSecret,
  KEYCLOAK_SERVICE_CLIENT_SECRET: randomSecret,
  KEYCLOAK_VAULT_CLIENT_SECRET: randomSecret,
  DEMO_PROVIDER_KEY: () => `demo-${randomSecret()}`,
} satisfies SettingGenerators;

type Secrets = Record<keyof typeof COMPOSE_SECRETS | 'ENCRYPTION_KEY' | 'SESSION_SECRET', string>;

/** Folder of the secrets themselves. Only this command reads it. */
const OWN_FOLDER = 'own';

/**
 * The files of each service, by the name of the volume that the service mounts. A service gets what it needs and nothing
 * else: the app, for example, gets no password of the schema's owner.
 */
function listServiceFiles(secrets: Secrets): Record<string, Record<string, string>> {
  const addressOf = (role: string, password: string, database: string) =>
    `postgres://${role}:${encodeURIComponent(password)}@postgres/${database}`;
  const appAddress = addressOf('ops_center', secrets.POSTGRES_APP_PASSWORD, 'ops_center');
  const clientSecrets = {
    KEYCLOAK_WEB_CLIENT_SECRET: secrets.KEYCLOAK_WEB_CLIENT_SECRET,
    KEYCLOAK_SERVICE_CLIENT_SECRET: secrets.KEYCLOAK_SERVICE_CLIENT_SECRET,
    KEYCLOAK_VAULT_CLIENT_SECRET: secrets.KEYCLOAK_VAULT_CLIENT_SECRET,
  };
  return {
    postgres: { POSTGRES_PASSWORD: secrets.POSTGRES_PASSWORD },
    database: {
      SUPERUSER_DATABASE_URL: addressOf('postgres', secrets.POSTGRES_PASSWORD, 'postgres'),
      MIGRATION_DATABASE_URL: addressOf('ops_center_owner', secrets.POSTGRES_OWNER_PASSWORD, 'ops_center'),
      DATABASE_URL: appAddress,
    },
    keycloak: { KC_BOOTSTRAP_ADMIN_PASSWORD: secrets.KEYCLOAK_ADMIN_PASSWORD, ...clientSecrets },
    app: {
      DATABASE_URL: appAddress,
      ENCRYPTION_KEY: secrets.ENCRYPTION_KEY,
      SESSION_SECRET: secrets.SESSION_SECRET,
      DEFAULT_LLM_API_KEY: secrets.DEMO_PROVIDER_KEY,
      ...clientSecrets,
    },
  };
}

/**
 * Writes the secrets of an installation into the volumes of its services, below `root`. A secret of the environment wins,
 * then the one of an earlier start, else a new one is generated. Values are not printed.
 */
export function writeComposeSecrets(
  environment: Environment,
  root: string,
  print: (text: string) => void,
): void {
  const own = path.join(root, OWN_FOLDER);
  const generated: string[] = [];
  const entries = Object.entries<() => string>(COMPOSE_SECRETS).map(([name, generate]): [string, string] => {
    const file = path.join(own, name);
    const given = environment[name];
    if (given !== undefined && given !== '') return [name, given];
    if (existsSync(file)) return [name, readFileSync(file, 'utf8')];
    generated.push(name);
    return [name, generate()];
  });
  mkdirSync(own, { recursive: true, mode: 0o700 });
  for (const [name, value] of entries) writeFile(path.join(own, name), value, 0o600);
  const files = listServiceFiles(Object.fromEntries(entries) as Secrets);
  for (const [folder, secrets] of Object.entries(files)) {
    mkdirSync(path.join(root, folder), { recursive: true });
    // The service that mounts the volume has another user. No other service mounts it.
    for (const [name, value] of Object.entries(secrets))
      writeFile(path.join(root, folder, name), value, 0o444);
  }
  print(
    generated.length === 0
      ? 'The secrets of this installation are in place.'
      : `Generated ${generated.join(', ')}. They are in the volumes of this installation: without them, stored keys cannot be decrypted.`,
  );
}

/** Replaces the file at once, so that a reader never sees half of it. Keeps a file that is the same. */
function writeFile(file: string, text: string, mode: number): void {
  if (existsSync(file) && readFileSync(file, 'utf8') === text) return;
  const draft = `${file}.new`;
  writeFileSync(draft, text, { mode });
  renameSync(draft, file);
}
