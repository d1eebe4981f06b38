/**
 * What `docker-compose.yml` runs besides the app: commands that end, and the demo provider. They are the same
 * functions that `npm start` calls.
 */
import type { Environment } from '../config/config.ts';
import { startDemoUpstream } from '../dev/demo-upstream/server.ts';
import { readDemo } from '../doctor/demo-users.ts';
import { SETTINGS } from '../config/settings.ts';
import {
  ensureGeneratedSettings,
  ENV_HEADER,
  APP_SECRETS,
  randomSecret,
  readEnvFile,
  type SettingGenerators,
} from './env-file.ts';
import { prepareRoles } from '../dev/quickstart/postgres/roles.ts';
import {
  addDemoData,
  setWebClientAddresses,
  signInAsBootstrapAdmin,
} from '../dev/quickstart/keycloak/realm-setup.ts';
import { assertLocalMode, readSetting } from './settings.ts';
import { whenAborted, type StopSignals } from './signals.ts';
import { StartError } from './start-error.ts';

type Print = (text: string) => void;

/** Everything that `docker-compose.yml` takes from `.env` and that nobody has to choose. */
const COMPOSE_SECRETS: SettingGenerators = {
  ...APP_SECRETS,
  POSTGRES_PASSWORD: randomSecret,
  POSTGRES_OWNER_PASSWORD: randomSecret,
  POSTGRES_APP_PASSWORD: randomSecret,
  KEYCLOAK_ADMIN_PASSWORD: randomSecret,
  KEYCLOAK_WEB_CLIENT_SECRET: randomSecret,
  KEYCLOAK_SERVICE_CLIENT_SECRET: randomSecret,
  KEYCLOAK_VAULT_CLIENT_SECRET: randomSecret,
  DEMO_PROVIDER_KEY: () => `demo-${randomSecret()}`,
};

/** Adds to `.env` what Compose needs and the file lacks; what stands there stays. */
export function writeComposeEnv(file: string, print: Print): void {
  // The file alone counts: what is set in this shell is not set in the one that starts Compose.
  const added = ensureGeneratedSettings(file, readEnvFile(file), COMPOSE_SECRETS);
  print(
    added.length === 0
      ? '.env has all that Compose needs.'
      : `Made ${added.join(', ')} and wrote them to .env. Keep that file: without it stored keys cannot be read.`,
  );
}

/** A new `.env` as text, for a machine without Node where the image makes it. */
export function createComposeEnv(): string {
  const lines = Object.entries(COMPOSE_SECRETS).map(([name, make]) => `${name}=${make()}`);
  return ENV_HEADER + lines.join('\n');
}

/**
 * Makes the two roles and the database that DATABASE_URL and MIGRATION_DATABASE_URL name, with the passwords
 * that they hold. May be run again.
 * @throws StartError when an address is missing or unfit.
 */
export async function prepareDatabase(environment: Environment, print: Print): Promise<void> {
  const app = getLogin(environment, 'DATABASE_URL');
  const owner = getLogin(environment, 'MIGRATION_DATABASE_URL');
  if (owner.database !== app.database)
    throw new StartError('DATABASE_URL and MIGRATION_DATABASE_URL name different databases.');
  await prepareRoles(getRequired(environment, 'SUPERUSER_DATABASE_URL'), app.database, { owner, app });
  print(`The database ${app.database} and its roles ${owner.name} and ${app.name} are there.`);
}

/**
 * Adds the demo users to the realm, and points its web client at the app. May be run again.
 * @throws StartError in a deployment, or when Keycloak refuses its administrator.
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

/** Serves the demo provider on loopback until it is told to stop. */
export async function serveDemoProvider(port: number, print: Print, { stop }: StopSignals): Promise<void> {
  const upstream = await startDemoUpstream({ port });
  print(`The demo provider answers at ${upstream.url}.`);
  await whenAborted(stop);
  await upstream.stop();
}

interface DatabaseLogin {
  name: string;
  password: string;
  database: string;
}

/** Names go into SQL as they are, so only plain ones are taken. */
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
  if (value === undefined) throw new StartError(`${name} is not set.`);
  return value;
}
