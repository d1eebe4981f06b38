import { ConfigError, type Config, type Environment } from '../../config/config.ts';
import { SETTINGS } from '../../config/settings.ts';
import type { RunningKeycloak } from './keycloak/keycloak.ts';
import type { RunningPostgres } from './postgres/postgres.ts';
import type { Secrets } from './secrets.ts';
import { loadConfig, dropEmptySettings } from '../../cli/settings.ts';

/** Servers that the quick start must start, because they are not configured. */
export interface StartPlan {
  /** Valid, with placeholders for the servers to start. */
  config: Config;
  postgres: boolean;
  keycloak: boolean;
  /** Whether to start the demo upstream, for the provider `demo`. */
  demoUpstream: boolean;
  /** Whether the demo upstream is the system default too. */
  demoIsDefault: boolean;
  postgresPort: number;
  keycloakPort: number;
}

/** Placeholders for servers that are started later, so that all other settings can be validated first. */
const PLACEHOLDER_SETTINGS = {
  database: { DATABASE_URL: 'postgres://127.0.0.1/later' },
  keycloak: {
    KEYCLOAK_URL: 'http://localhost:1',
    KEYCLOAK_WEB_CLIENT_SECRET: 'later',
    KEYCLOAK_SERVICE_CLIENT_SECRET: 'later',
    KEYCLOAK_VAULT_CLIENT_SECRET: 'later',
  },
};

/**
 * Decides which servers to start.
 * @throws ConfigError listing all errors of the configuration.
 */
export function planStart(environment: Environment): StartPlan {
  const isSet = (name: string) => Boolean(environment[name] ?? environment[`${name}_FILE`]);
  const plan = {
    postgres: !isSet('DATABASE_URL'),
    keycloak: !isSet('KEYCLOAK_URL'),
    demoUpstream: !isSet('UPSTREAM_DEMO_URL'),
    demoIsDefault: !isSet('DEFAULT_LLM_API_KEY') && !isSet('DEFAULT_LLM_BASE_URL'),
  };
  const config = loadConfig({
    ...dropEmptySettings(environment),
    ...(plan.postgres ? PLACEHOLDER_SETTINGS.database : {}),
    ...(plan.keycloak ? PLACEHOLDER_SETTINGS.keycloak : {}),
  });
  if (plan.keycloak) assertDefaultRealms(config);
  return {
    ...plan,
    config,
    postgresPort: readPort(environment, 'POSTGRES_PORT'),
    keycloakPort: readPort(environment, 'KEYCLOAK_PORT'),
  };
}

/** Settings for the started servers; they override the environment. */
export function toStackSettings(
  started: { postgres?: RunningPostgres; keycloak?: RunningKeycloak },
  secrets: Secrets,
): Environment {
  const { postgres, keycloak } = started;
  return {
    ...(postgres && {
      DATABASE_URL: postgres.urlFor('app'),
      MIGRATION_DATABASE_URL: postgres.urlFor('owner'),
    }),
    ...(keycloak && {
      KEYCLOAK_URL: keycloak.url,
      KEYCLOAK_INTERNAL_URL: keycloak.internalUrl,
      KEYCLOAK_WEB_CLIENT_SECRET: secrets.get('keycloak-web-client'),
      KEYCLOAK_SERVICE_CLIENT_SECRET: secrets.get('keycloak-service-client'),
      KEYCLOAK_VAULT_CLIENT_SECRET: secrets.get('keycloak-vault-client'),
    }),
  };
}

/** Settings that make the demo upstream the provider `demo` and, if `isDefault`, the system default. */
export function toDemoSettings(url: string, key: string, isDefault: boolean): Environment {
  if (!isDefault) return { UPSTREAM_DEMO_URL: url };
  return {
    UPSTREAM_DEMO_URL: url,
    DEFAULT_LLM_PROVIDER: 'demo',
    DEFAULT_LLM_BASE_URL: url,
    DEFAULT_LLM_API_KEY: key,
    DEFAULT_LLM_MODEL: 'demo',
  };
}

/** The realm files define the names of realms and clients, so other names need another Keycloak. */
function assertDefaultRealms(config: Config): void {
  const { realm, vaultRealm, web, service, vault } = config.keycloak;
  const settings: [string, string, string][] = [
    ['KEYCLOAK_REALM', realm, 'ops-center'],
    ['KEYCLOAK_VAULT_REALM', vaultRealm, 'ops-center-vault'],
    ['KEYCLOAK_WEB_CLIENT_ID', web.id, 'ops-center-web'],
    ['KEYCLOAK_SERVICE_CLIENT_ID', service.id, 'ops-center-service'],
    ['KEYCLOAK_VAULT_CLIENT_ID', vault.id, 'ops-center-vault'],
  ];
  const problems = settings
    .filter(([, value, required]) => value !== required)
    .map(([name, , required]) => `${name} must be ${required}, or set KEYCLOAK_URL to your own Keycloak`);
  if (problems.length > 0) throw new ConfigError(problems);
}

function readPort(environment: Environment, name: 'POSTGRES_PORT' | 'KEYCLOAK_PORT'): number {
  const { schema, fallback } = SETTINGS[name];
  return schema.parse(dropEmptySettings(environment)[name] ?? fallback);
}
