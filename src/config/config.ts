import type { z } from 'zod';
import { isLoopbackHost } from '../lib/net/addresses.ts';
import { PROVIDER_IDS, PROVIDERS } from '../providers/index.ts';
import { SETTINGS, providerAddress, type Setting } from './settings.ts';
import { findSecretErrors } from './weak-secrets.ts';

/** `local` without DEPLOY_ENV: one machine, loopback only. Anything else is `deployed`. */
export type Mode = 'local' | 'deployed';

/** The default names of the session cookie. Browsers accept `__Host-` over https only, and from that host only. */
export const SESSION_COOKIE_NAMES: Readonly<Record<Mode, string>> = {
  local: 'session',
  deployed: '__Host-session',
};

type SettingName = keyof typeof SETTINGS;
type SettingValues = { [Name in SettingName]: z.output<(typeof SETTINGS)[Name]['schema']> | undefined };

/** The environment variables, passed in by cli/main.ts. */
export type Environment = Record<string, string | undefined>;

export interface ReadConfigOptions {
  /** True for a process that listens on the configured ports: 0 is refused. The quick start chooses ports itself. */
  isListening?: boolean;
}

export interface Config extends ReturnType<typeof toConfig> {}

/** All errors of a configuration, each with the setting's name. They never contain values. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly errors: readonly string[];
  constructor(errors: readonly string[]) {
    super(
      `The configuration has ${errors.length} error(s):\n${errors.map((error) => `  - ${error}`).join('\n')}`,
    );
    this.errors = errors;
  }
}

/**
 * Reads the configuration. The path of a file with a secret may be given in `NAME_FILE`.
 * @param readFile reads a text file; injected so that this module does no I/O.
 * @throws ConfigError with all errors.
 */
export function readConfig(
  environment: Environment,
  readFile: (path: string) => string,
  options: ReadConfigOptions = {},
): Config {
  const errors: string[] = [];
  const values: Record<string, unknown> = {};
  const invalidNames = new Set<string>();
  for (const [name, setting] of Object.entries<Setting>(SETTINGS)) {
    const text = readSettingText(name, setting, environment, readFile, errors);
    if (text === undefined) {
      if (setting.required) errors.push(`${name} is not set: ${setting.description}`);
      continue;
    }
    const result = setting.schema.safeParse(text);
    if (result.success) {
      values[name] = result.data;
      continue;
    }
    invalidNames.add(name);
    errors.push(`${name} ${formatZodError(result.error)}`);
  }
  const upstreams = readUpstreams(environment, errors);
  const config = toConfig(values as SettingValues, upstreams, listSecretFiles(environment));
  errors.push(...findCrossSettingErrors(config, values as SettingValues, { ...options, invalidNames }));
  if (errors.length > 0) throw new ConfigError(errors);
  return config;
}

function readSettingText(
  name: string,
  setting: Setting,
  environment: Environment,
  readFile: (path: string) => string,
  errors: string[],
): string | undefined {
  const direct = environment[name];
  const path = setting.secret ? environment[`${name}_FILE`] : undefined;
  if (path && direct) errors.push(`${name} and ${name}_FILE are both set; keep one`);
  if (path) {
    try {
      return readFile(path).trim();
    } catch {
      errors.push(`${name}_FILE names a file that cannot be read`);
      return setting.fallback;
    }
  }
  // An empty value is how Compose and many shells write "unset".
  return direct === undefined || direct === '' ? setting.fallback : direct;
}

/** The files from which secrets were read. They are hidden from programs that users run on this machine. */
function listSecretFiles(environment: Environment): string[] {
  const secrets = Object.entries<Setting>(SETTINGS).filter(([, setting]) => setting.secret);
  return secrets.map(([name]) => environment[`${name}_FILE`] ?? '').filter((file) => file !== '');
}

function readUpstreams(environment: Environment, errors: string[]): Record<string, string> {
  const upstreams: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment)) {
    const id = /^UPSTREAM_([A-Z0-9]+)_URL$/.exec(name)?.[1]?.toLowerCase();
    if (id === undefined || !value) continue;
    const address = providerAddress.safeParse(value);
    if (!PROVIDER_IDS.some((known) => known === id))
      errors.push(`${name} names no provider (${PROVIDER_IDS.join(', ')})`);
    else if (!address.success) errors.push(`${name} ${formatZodError(address.error)}`);
    else upstreams[id] = address.data;
  }
  return upstreams;
}

function toConfig(v: SettingValues, upstreams: Record<string, string>, secretFiles: readonly string[]) {
  const mode: Mode = v.DEPLOY_ENV === undefined ? 'local' : 'deployed';
  const publicUrl = v.PUBLIC_URL ?? `http://localhost:${v.PORT ?? 0}`;
  const keycloakUrl = v.KEYCLOAK_URL ?? '';
  return {
    mode,
    port: v.PORT ?? 0,
    host: v.HOST ?? '',
    publicUrl,
    internalUrl: v.INTERNAL_URL ?? publicUrl,
    allowLocalModeExposed: v.ALLOW_LOCAL_MODE_EXPOSED ?? false,
    trustProxy: v.TRUST_PROXY ?? 0,
    metricsPort: v.METRICS_PORT ?? 0,
    logLevel: v.LOG_LEVEL ?? 'info',
    dataDir: v.DATA_DIR ?? '',
    databaseUrl: v.DATABASE_URL ?? '',
    migrationDatabaseUrl: v.MIGRATION_DATABASE_URL,
    encryptionKeys: v.ENCRYPTION_KEY ?? [],
    sessionSecret: v.SESSION_SECRET ?? '',
    sessionCookieName: v.SESSION_COOKIE_NAME ?? SESSION_COOKIE_NAMES[mode],
    keycloak: {
      url: keycloakUrl,
      internalUrl: v.KEYCLOAK_INTERNAL_URL ?? keycloakUrl,
      realm: v.KEYCLOAK_REALM ?? '',
      vaultRealm: v.KEYCLOAK_VAULT_REALM ?? 'ops-center-vault',
      web: { id: v.KEYCLOAK_WEB_CLIENT_ID ?? '', secret: v.KEYCLOAK_WEB_CLIENT_SECRET ?? '' },
      service: { id: v.KEYCLOAK_SERVICE_CLIENT_ID ?? '', secret: v.KEYCLOAK_SERVICE_CLIENT_SECRET ?? '' },
      vault: { id: v.KEYCLOAK_VAULT_CLIENT_ID ?? '', secret: v.KEYCLOAK_VAULT_CLIENT_SECRET ?? '' },
    },
    apiClientIds: v.API_CLIENT_IDS ?? [],
    systemDefault: toSystemDefault(v, mode),
    /** Provider id -> address set by the operator. */
    upstreams,
    requestsPerUser: v.REQUESTS_PER_USER ?? 0,
    auditDays: v.AUDIT_DAYS ?? 0,
    usageDays: v.USAGE_DAYS ?? 0,
    localExecution: v.LOCAL_EXECUTION ?? false,
    localCeilings: {
      memoryBytes: v.LOCAL_MAX_MEMORY_BYTES ?? null,
      cpus: v.LOCAL_MAX_CPUS ?? null,
      pids: v.LOCAL_MAX_PIDS ?? null,
    },
    secretFiles,
    egress: { allow: v.EGRESS_ALLOW, deny: v.EGRESS_DENY ?? [] },
    runs: {
      perUser: v.RUNS_PER_USER ?? 0,
      perServer: v.RUNS_PER_SERVER ?? 0,
      perInstance: v.RUNS_PER_INSTANCE ?? 0,
      historyDays: v.RUN_HISTORY_DAYS ?? 0,
    },
    timeouts: {
      connectMs: v.UPSTREAM_CONNECT_TIMEOUT_MS ?? 0,
      firstByteMs: v.UPSTREAM_FIRST_BYTE_TIMEOUT_MS ?? 0,
      idleMs: v.UPSTREAM_IDLE_TIMEOUT_MS ?? 0,
      streamSilenceMs: v.STREAM_SILENCE_MS ?? 0,
      shutdownGraceMs: v.SHUTDOWN_GRACE_MS ?? 0,
      keepAliveMs: v.KEEP_ALIVE_TIMEOUT_MS ?? 0,
    },
  };
}

function toSystemDefault(v: SettingValues, mode: Mode) {
  const model = v.DEFAULT_LLM_MODEL ?? null;
  return {
    provider: v.DEFAULT_LLM_PROVIDER ?? 'openrouter',
    apiKey: v.DEFAULT_LLM_API_KEY,
    baseUrl: v.DEFAULT_LLM_BASE_URL,
    model,
    models: v.DEFAULT_LLM_MODELS ?? (mode === 'local' ? ['*'] : model === null ? [] : [model]),
    extraFields: v.DEFAULT_LLM_EXTRA_FIELDS ?? [],
  };
}

interface ValidationContext extends ReadConfigOptions {
  /** Settings with an invalid value, which already have an error of their own. */
  invalidNames: ReadonlySet<string>;
}

/** Errors that concern several settings together. */
function findCrossSettingErrors(config: Config, v: SettingValues, context: ValidationContext): string[] {
  const errors =
    config.mode === 'local' ? findLocalModeErrors(config) : findDeployedModeErrors(config, v, context);
  errors.push(...findPortErrors(config, v, context));
  if (config.systemDefault.provider === 'custom' && !config.systemDefault.baseUrl) {
    errors.push('DEFAULT_LLM_PROVIDER=custom needs DEFAULT_LLM_BASE_URL');
  }
  return errors;
}

function findPortErrors(
  config: Config,
  v: SettingValues,
  { isListening = false }: ValidationContext,
): string[] {
  const errors: string[] = [];
  if (config.port !== 0 && config.port === config.metricsPort) {
    errors.push('METRICS_PORT must differ from PORT: they are separate listeners');
  }
  const zeros = isListening ? (['PORT', 'METRICS_PORT'] as const).filter((name) => v[name] === 0) : [];
  for (const name of zeros) {
    errors.push(`${name} must not be 0: set a fixed port. Only the quick start chooses a free one`);
  }
  return errors;
}

function findLocalModeErrors(config: Config): string[] {
  const errors: string[] = [];
  const hint = 'local mode is for one machine: set DEPLOY_ENV for a deployment';
  if (!isLoopbackHost(config.host) && !config.allowLocalModeExposed) {
    errors.push(`HOST is not loopback; ${hint}, or ALLOW_LOCAL_MODE_EXPOSED=true`);
  }
  if (!isLoopbackHost(hostOf(config.publicUrl))) errors.push(`PUBLIC_URL is not loopback; ${hint}`);
  if (/^__(Host|Secure)-/i.test(config.sessionCookieName))
    errors.push('SESSION_COOKIE_NAME with this prefix needs DEPLOY_ENV: browsers accept it over https only');
  return errors;
}

function findDeployedModeErrors(
  config: Config,
  v: SettingValues,
  { invalidNames }: ValidationContext,
): string[] {
  const errors: string[] = [];
  if (v.DEBUG) errors.push('DEBUG=true and DEPLOY_ENV cannot both be set');
  if (v.PUBLIC_URL !== undefined && !config.publicUrl.startsWith('https:'))
    errors.push('PUBLIC_URL must be https when DEPLOY_ENV is set');
  if (config.keycloak.url !== '' && !config.keycloak.url.startsWith('https:')) {
    errors.push('KEYCLOAK_URL must be https when DEPLOY_ENV is set');
  } else if (config.keycloak.url !== '' && !config.keycloak.internalUrl.startsWith('https:')) {
    errors.push('KEYCLOAK_INTERNAL_URL must be https when KEYCLOAK_URL is');
  }
  for (const name of ['PUBLIC_URL', 'KEYCLOAK_VAULT_REALM'] as const) {
    if (v[name] === undefined && !invalidNames.has(name))
      errors.push(`${name} is not set: it is required when DEPLOY_ENV is set`);
  }
  return [
    ...errors,
    ...findSecretErrors({ ...config, sessionSecret: v.SESSION_SECRET }),
    ...findDeployedProviderErrors(config),
  ];
}

function findDeployedProviderErrors({ systemDefault, upstreams }: Config): string[] {
  const errors: string[] = [];
  for (const { id } of PROVIDERS.filter(({ isLocalOnly }) => isLocalOnly)) {
    if (systemDefault.provider === id)
      errors.push(`DEFAULT_LLM_PROVIDER cannot be ${id} when DEPLOY_ENV is set: it is for local mode`);
    if (upstreams[id] !== undefined)
      errors.push(
        `UPSTREAM_${id.toUpperCase()}_URL cannot be set when DEPLOY_ENV is: ${id} is for local mode`,
      );
  }
  if (systemDefault.apiKey !== undefined && systemDefault.models.length === 0) {
    errors.push(
      'DEFAULT_LLM_API_KEY is set but pays for no model: set DEFAULT_LLM_MODEL or DEFAULT_LLM_MODELS, or unset it',
    );
  }
  return errors;
}

function hostOf(url: string): string {
  return new URL(url).hostname;
}

/** The distinct messages, to follow the setting's name. */
function formatZodError(error: z.ZodError): string {
  const messages = error.issues.map(({ message }) => message.charAt(0).toLowerCase() + message.slice(1));
  return [...new Set(messages)].join('; ');
}
