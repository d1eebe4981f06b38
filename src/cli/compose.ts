/**
 * Commands that `docker-compose.yml` runs besides the app: setup commands and the demo provider. They call the same
 * functions as `npm start`.
 */
import type { Environment } from '../config/config.ts';
import { startDemoUpstream } from '../dev/demo-upstream/server.ts';
import { readDemo } from '../lib/keycloak/demo-users.ts';
import { SETTINGS } from '../config/settings.ts';
import { COMPOSE_SECRETS } from './compose-secrets.ts';
import { ensureGeneratedSettings, ENV_HEADER, readEnvFile } from './env-file.ts';
import { prepareRoles } from '../dev/quickstart/postgres/roles.ts';
import {
  addDemoData,
  setWebClientAddresses,
  signInAsBootstrapAdmin,
} from '../dev/quickstart/keycloak/realm-setup.ts';
import { assertLocalMode, readSetting } from './settings.ts';
import { whenAborted, type StopSignals } from './signals.ts';
import { StartError } from '../lib/errors.ts';

type Print = (text: string) => void;

/** Adds missing settings for Compose to `.env`. Existing settings are not changed. */
export function writeComposeEnv(file: string, print: Print): void {
  // Reads the file only: the shell that starts Compose may have other variables than this one.
  const added = ensureGeneratedSettings(file, readEnvFile(file), COMPOSE_SECRETS);
  print(
    added.length === 0
      ? '.env has all settings that Compose needs.'
      : `Generated ${added.join(', ')} in .env. Keep that file: without it, stored keys cannot be decrypted.`,
  );
}

/** Text of a new `.env`, for a machine without Node that runs this command in the image. */
export function createComposeEnv(): string {
  const lines = Object.entries(COMPOSE_SECRETS).map(([name, generate]) => `${name}=${generate()}`);
  return ENV_HEADER + lines.join('\n');
}

/**
 * Creates the two roles and the database named in DATABASE_URL and MIGRATION_DATABASE_URL, and sets the passwords
 * of these addresses. Idempotent.
 * @throws StartError if an address is missing or not valid.
 */
export async function prepareDatabase(environment: Environment, print: Print): Promise<void> {
  const app = getLogin(environment, 'DATABASE_URL');
  const owner = getLogin(environment, 'MIGRATION_DATABASE_URL');
  if (owner.database !== app.database)
    throw new StartError(
      'DATABASE_URL and MIGRATION_DATABASE_URL name different databases. Use the same database in both.',
    );
  await prepareRoles(getRequired(environment, 'SUPERUSER_DATABASE_URL'), app.database, { owner, app });
  print(`The database ${app.database} and its roles ${owner.name} and ${app.name} are ready.`);
}

/**
 * Adds the demo users to the realm and sets the app's address in its web client. Idempotent.
 * @throws StartError in a deployment, or if Keycloak refuses the administrator's password.
 */
export async function addDemoUsers(environment: Environment, print: Print): Promise<void> {
  assertLocalMode(environment, 'demo-users');
  const keycloakUrl =
    readSetting(environment, 'KEYCLOAK_INTERNAL_URL') ?? getRequired(environment, 'KEYCLOAK_URL');
  const publicUrl = getRequired(environment, 'PUBLIC_URL');
  const name = 'KEYCLOAK_ADMIN_PASSWORD';
  const admin = await signInAsBootstrapAdmin(keycloakUrl, getRequired(environment, name), name);
  const realm = readSetting(environment, 'KEYCLOAK_REALM') ?? SETTINGS.KEYCLOAK_REALM.fallback;
  const demo = await readDemo();
  await addDemoData(admin, realm, demo);
  await setWebClientAddresses(admin, realm, {
    clientId: readSetting(environment, 'KEYCLOAK_WEB_CLIENT_ID') ?? SETTINGS.KEYCLOAK_WEB_CLIENT_ID.fallback,
    publicUrl,
    internalUrl: readSetting(environment, 'INTERNAL_URL') ?? publicUrl,
  });
  const names = demo.users.map(({ username }) => username).join(', ');
  print(`Demo users (password "demo"): ${names}. Open ${publicUrl}`);
}

/** Serves the demo provider on loopback until `stop` is aborted. */
export async function serveDemoProvider(port: number, print: Print, { stop }: StopSignals): Promise<void> {
  const upstream = await startDemoUpstream({ port });
  print(`The demo provider listens at ${upstream.url}.`);
  await whenAborted(stop);
  await upstream.stop();
}

interface DatabaseLogin {
  name: string;
  password: string;
  database: string;
}

/** Names are written into SQL without quotes, so only plain names are allowed. */
const PLAIN_NAME = /^[a-z_][a-z0-9_]{0,62}$/;

function getLogin(environment: Environment, name: string): DatabaseLogin {
  const url = URL.parse(getRequired(environment, name));
  const login = {
    name: decodeURIComponent(url?.username ?? ''),
    password: decodeURIComponent(url?.password ?? ''),
    database: url?.pathname.slice(1) ?? '',
  };
  if (!PLAIN_NAME.test(login.name) || !PLAIN_NAME.test(login.database) || login.password === '')
    throw new StartError(
      `${name} must be postgres://role:password@host/database with plain names (a-z, 0-9, _).`,
    );
  return login;
}

function getRequired(environment: Environment, name: string): string {
  const value = readSetting(environment, name);
  if (value === undefined) throw new StartError(`${name} is not set. Set it and run the command again.`);
  return value;
}
