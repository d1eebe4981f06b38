import type { z } from 'zod';
import { isLoopbackHost } from './lib/addresses.ts';
import { PROVIDER_IDS, PROVIDERS } from './providers/index.ts';
import { SETTINGS, webAddress, type Setting } from './settings.ts';

/** `local` without DEPLOY_ENV: one machine, loopback only. Anything else is `deployed`. */
export type Mode = 'local' | 'deployed';

type SettingName = keyof typeof SETTINGS;
type Values = { [Name in SettingName]: z.output<(typeof SETTINGS)[Name]['schema']> | undefined };

/** The environment as handed in by the two files that may read it. */
export type Environment = Record<string, string | undefined>;

export interface ReadOptions {
  /** For a process that listens as configured: a port of 0 is refused. Not so where a port is chosen first. */
  listens?: boolean;
}

export interface Config extends ReturnType<typeof assemble> {}

/** All faults of a configuration at once, each with the setting's name. Values are never repeated. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly faults: readonly string[];
  constructor(faults: readonly string[]) {
    super(
      `The configuration has ${faults.length} fault(s):\n${faults.map((fault) => `  - ${fault}`).join('\n')}`,
    );
    this.faults = faults;
  }
}

/**
 * Reads the configuration. A secret may also come as the path of a file in `NAME_FILE`.
 * @param readFile reads a text file; injected so that this module does no input.
 * @throws ConfigError listing every fault.
 */
export function readConfig(
  environment: Environment,
  readFile: (path: string) => string,
  options: ReadOptions = {},
): Config {
  const faults: string[] = [];
  const values: Record<string, unknown> = {};
  const unread = new Set<string>();
  for (const [name, setting] of Object.entries<Setting>(SETTINGS)) {
    const text = settingText(name, setting, environment, readFile, faults);
    if (text === undefined) {
      if (setting.required) faults.push(`${name} is not set: ${setting.about}`);
      continue;
    }
    const result = setting.schema.safeParse(text);
    if (result.success) {
      values[name] = result.data;
      continue;
    }
    unread.add(name);
    faults.push(`${name} ${wordsOf(result.error)}`);
  }
  const upstreams = readUpstreams(environment, faults);
  const config = assemble(values as Values, upstreams, secretFilesIn(environment));
  faults.push(...crossFaults(config, values as Values, { ...options, unread }));
  if (faults.length > 0) throw new ConfigError(faults);
  return config;
}

function settingText(
  name: string,
  setting: Setting,
  environment: Environment,
  readFile: (path: string) => string,
  faults: string[],
): string | undefined {
  const direct = environment[name];
  const path = setting.secret ? environment[`${name}_FILE`] : undefined;
  if (path && direct) faults.push(`${name} and ${name}_FILE are both set; keep one`);
  if (path) {
    try {
      return readFile(path).trim();
    } catch {
      faults.push(`${name}_FILE names a file that cannot be read`);
      return setting.fallback;
    }
  }
  // An empty value is how Compose and many shells write "unset".
  return direct === undefined || direct === '' ? setting.fallback : direct;
}

/** Where secrets were read from: no program that is run here may see these files. */
function secretFilesIn(environment: Environment): string[] {
  const secrets = Object.entries<Setting>(SETTINGS).filter(([, setting]) => setting.secret);
  return secrets.map(([name]) => environment[`${name}_FILE`] ?? '').filter((file) => file !== '');
}

function readUpstreams(environment: Environment, faults: string[]): Record<string, string> {
  const upstreams: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment)) {
    const id = /^UPSTREAM_([A-Z0-9]+)_URL$/.exec(name)?.[1]?.toLowerCase();
    if (id === undefined || !value) continue;
    const address = webAddress.safeParse(value);
    if (!PROVIDER_IDS.some((known) => known === id))
      faults.push(`${name} names no provider (${PROVIDER_IDS.join(', ')})`);
    else if (!address.success) faults.push(`${name} ${wordsOf(address.error)}`);
    else upstreams[id] = address.data;
  }
  return upstreams;
}

function assemble(v: Values, upstreams: Record<string, string>, secretFiles: readonly string[]) {
  const mode: Mode = v.DEPLOY_ENV === undefined ? 'local' : 'deployed';
  const publicUrl = v.PUBLIC_URL ?? `http://localhost:${v.PORT ?? 0}`;
  const keycloakUrl = v.KEYCLOAK_URL ?? '';
  const defaultModel = v.DEFAULT_LLM_MODEL ?? null;
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
    sessionCookieName: v.SESSION_COOKIE_NAME ?? '',
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
    systemDefault: {
      provider: v.DEFAULT_LLM_PROVIDER ?? 'openrouter',
      apiKey: v.DEFAULT_LLM_API_KEY,
      baseUrl: v.DEFAULT_LLM_BASE_URL,
      model: defaultModel,
      models:
        v.DEFAULT_LLM_MODELS ?? (mode === 'local' ? ['*'] : defaultModel === null ? [] : [defaultModel]),
      extraFields: v.DEFAULT_LLM_EXTRA_FIELDS ?? [],
    },
    /** Provider id -> the address that the operator set for it. */
    upstreams,
    localExecution: v.LOCAL_EXECUTION ?? false,
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
      shutdownGraceMs: v.SHUTDOWN_GRACE_MS ?? 0,
    },
  };
}

interface Judged extends ReadOptions {
  /** Settings that are set but could not be read: their own fault says enough. */
  unread: ReadonlySet<string>;
}

/** Faults that lie between settings. */
function crossFaults(config: Config, v: Values, judged: Judged): string[] {
  const faults = config.mode === 'local' ? localFaults(config) : deployedFaults(config, v, judged);
  faults.push(...portFaults(config, v, judged));
  if (config.systemDefault.provider === 'custom' && !config.systemDefault.baseUrl) {
    faults.push('DEFAULT_LLM_PROVIDER=custom needs DEFAULT_LLM_BASE_URL');
  }
  return faults;
}

function portFaults(config: Config, v: Values, { listens = false }: Judged): string[] {
  const faults: string[] = [];
  if (config.port !== 0 && config.port === config.metricsPort) {
    faults.push('METRICS_PORT must differ from PORT: each is a listener of its own');
  }
  const zeros = listens ? (['PORT', 'METRICS_PORT'] as const).filter((name) => v[name] === 0) : [];
  for (const name of zeros) {
    faults.push(
      `${name} must not be 0: which port that is would be known to nobody; only the quick start picks a free one`,
    );
  }
  return faults;
}

function localFaults(config: Config): string[] {
  const faults: string[] = [];
  const hint = 'local mode is for one machine: set DEPLOY_ENV for a deployment';
  if (!isLoopbackHost(config.host) && !config.allowLocalModeExposed) {
    faults.push(`HOST is not loopback; ${hint}, or ALLOW_LOCAL_MODE_EXPOSED=true`);
  }
  if (!isLoopbackHost(hostOf(config.publicUrl))) faults.push(`PUBLIC_URL is not loopback; ${hint}`);
  return faults;
}

function deployedFaults(config: Config, v: Values, { unread }: Judged): string[] {
  const faults: string[] = [];
  if (v.DEBUG) faults.push('DEBUG=true and DEPLOY_ENV cannot both be set');
  if (v.PUBLIC_URL !== undefined && !config.publicUrl.startsWith('https:'))
    faults.push('PUBLIC_URL must be https when DEPLOY_ENV is set');
  if (config.keycloak.url !== '' && !config.keycloak.url.startsWith('https:')) {
    faults.push('KEYCLOAK_URL must be https when DEPLOY_ENV is set');
  } else if (config.keycloak.url !== '' && !config.keycloak.internalUrl.startsWith('https:')) {
    faults.push('KEYCLOAK_INTERNAL_URL must be https when KEYCLOAK_URL is');
  }
  for (const name of ['PUBLIC_URL', 'KEYCLOAK_VAULT_REALM'] as const) {
    if (v[name] === undefined && !unread.has(name))
      faults.push(`${name} is not set: it is required when DEPLOY_ENV is set`);
  }
  for (const [name, client] of [
    ['WEB', config.keycloak.web],
    ['SERVICE', config.keycloak.service],
    ['VAULT', config.keycloak.vault],
  ] as const) {
    if (client.secret.length > 0 && client.secret.length < 32) {
      faults.push(`KEYCLOAK_${name}_CLIENT_SECRET must have 32 characters or more when DEPLOY_ENV is set`);
    }
  }
  return [...faults, ...deployedProviderFaults(config)];
}

function deployedProviderFaults({ systemDefault, upstreams }: Config): string[] {
  const faults: string[] = [];
  for (const { id } of PROVIDERS.filter(({ localOnly }) => localOnly)) {
    if (systemDefault.provider === id)
      faults.push(`DEFAULT_LLM_PROVIDER cannot be ${id} when DEPLOY_ENV is set: it is for local mode`);
    if (upstreams[id] !== undefined)
      faults.push(
        `UPSTREAM_${id.toUpperCase()}_URL cannot be set when DEPLOY_ENV is: ${id} is for local mode`,
      );
  }
  if (systemDefault.apiKey !== undefined && systemDefault.models.length === 0) {
    faults.push(
      'DEFAULT_LLM_API_KEY is set but pays for no model: set DEFAULT_LLM_MODEL or DEFAULT_LLM_MODELS, or unset it',
    );
  }
  return faults;
}

function hostOf(url: string): string {
  return new URL(url).hostname;
}

/** Each complaint once, to stand behind the setting's name. */
function wordsOf(error: z.ZodError): string {
  const words = error.issues.map(({ message }) => message.charAt(0).toLowerCase() + message.slice(1));
  return [...new Set(words)].join('; ');
}
