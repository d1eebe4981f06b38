import { z } from 'zod';
import { parseEgressRule } from '../lib/net/addresses.ts';
import { PROVIDER_IDS } from '../providers/index.ts';

const flag = z.stringbool({
  truthy: ['true', '1'],
  falsy: ['false', '0', ''],
  error: 'must be true or false',
});
const port = wholeNumber(0, 65_535, 'must be a port number from 0 to 65535');
const milliseconds = wholeNumber(1, 2 ** 31 - 1, 'must be a whole number of milliseconds from 1 on');
/**
 * An http or https address, without slashes at its end. What is put behind it would land in a query or a
 * fragment, and a user name in it would be sent to wherever it names.
 */
export const webAddress = z
  .url({ protocol: /^https?$/, error: 'must be an http or https address' })
  .refine((url) => !/[?#\\]/.test(url), 'must have no query and no fragment')
  .refine((url) => !/^https?:\/\/[^/]*@/i.test(url), 'must have no user name and no password')
  .transform((url) => url.replace(/\/+$/, ''));
/** A web address whose paths are all ours. */
const webOrigin = webAddress.refine(
  (url) => !/^https?:\/\/[^/]+\//i.test(url),
  'must have no path: the app answers at its root',
);
/**
 * An address of Postgres. Its driver lets the query say where to connect to, past the address that users'
 * endpoints are kept away from.
 */
const postgresAddress = z
  .url({ protocol: /^postgres(ql)?$/, error: 'must be a postgres:// address' })
  .refine(
    (url) => !['host', 'hostaddr', 'port'].some((name) => URL.parse(url)?.searchParams.has(name)),
    'must name host and port before the path: host, hostaddr and port are not accepted in its query',
  )
  .refine((url) => URL.parse(url)?.hostname !== '', 'must name a host')
  // The driver would otherwise take a missing port from the environment, and users' endpoints another.
  .transform((url) => {
    const address = new URL(url);
    if (address.port === '') address.port = '5432';
    return address.href;
  });
const list = z.string().transform((text) =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter(Boolean),
);
const egressRules = list.check((context) => {
  for (const rule of context.value) {
    try {
      parseEgressRule(rule);
    } catch (error) {
      context.issues.push({ code: 'custom', input: rule, message: (error as Error).message });
    }
  }
});
/** A Fernet key: 32 bytes as URL-safe base64 with its padding. */
const FERNET_KEY = /^[A-Za-z0-9_-]{43}=$/;
const fernetKeys = list.refine(
  (keys) => keys.length > 0 && keys.every((key) => FERNET_KEY.test(key)),
  'must be Fernet keys (32 bytes, URL-safe base64), separated by commas',
);

function wholeNumber(min: number, max: number, error: string) {
  return z.coerce.number({ error }).refine((n) => Number.isInteger(n) && n >= min && n <= max, { error });
}

/** One setting: how it is read, and what people are told of it. */
export interface Setting {
  schema: z.ZodType;
  /** For people: .env.example, the README and the fault of a required one are made from it. It stands alone. */
  description: string;
  /** As it would stand in the environment. */
  fallback?: string;
  secret?: true;
  required?: true;
  /** How the quick start fills it in; shown as the default. */
  quickStart?: string;
}

/** Every setting of the product, in the order in which people read them. */
export const SETTINGS = {
  DEPLOY_ENV: { schema: z.string(), description: 'Unset: local mode. Any value: deployed mode.' },
  DEBUG: {
    schema: flag,
    fallback: 'false',
    description: 'Local mode only; together with DEPLOY_ENV a start error.',
  },
  PORT: {
    schema: port,
    fallback: '3000',
    description: 'Where the app listens; in the quick start 0 picks a free port.',
  },
  HOST: { schema: z.string(), fallback: '127.0.0.1', description: 'The address that the app listens on.' },
  PUBLIC_URL: {
    schema: webOrigin,
    description:
      'The app as the browser reaches it, without a path. Required when deployed; `http://localhost:PORT` in local mode.',
  },
  INTERNAL_URL: {
    schema: webAddress,
    description: 'The app as Keycloak reaches it, for back-channel logout. Default: PUBLIC_URL.',
  },
  ALLOW_LOCAL_MODE_EXPOSED: {
    schema: flag,
    fallback: 'false',
    description: 'Lets local mode listen beyond loopback.',
  },
  TRUST_PROXY: {
    schema: wholeNumber(0, 100, 'must be the number of reverse proxies'),
    fallback: '0',
    description: 'How many reverse proxies stand in front.',
  },
  METRICS_PORT: {
    schema: port,
    fallback: '9464',
    description:
      'Metrics and health details, on loopback unless HOST says otherwise; in the quick start 0 picks a free port.',
  },
  LOG_LEVEL: {
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']),
    fallback: 'info',
    description: 'How much is logged.',
  },
  DATA_DIR: {
    schema: z.string(),
    fallback: '.data',
    description: 'What the quick start keeps: database, Keycloak, their passwords.',
  },
  DATABASE_URL: {
    schema: postgresAddress,
    required: true,
    secret: true,
    quickStart: 'started',
    description: "Address of Postgres, as the app's role (a member of ops_center_app).",
  },
  MIGRATION_DATABASE_URL: {
    schema: postgresAddress,
    secret: true,
    quickStart: 'started',
    description:
      'Address of Postgres, as the role that owns the schema. Unset: pending migrations refuse the start.',
  },
  POSTGRES_PORT: {
    schema: port,
    fallback: '5433',
    description: 'Port of the database that the quick start starts; 0 picks a free one.',
  },
  ENCRYPTION_KEY: {
    schema: fernetKeys,
    required: true,
    secret: true,
    quickStart: 'made once into .env',
    description:
      'Fernet keys, comma-separated: the first encrypts, all decrypt. Losing it loses every stored key.',
  },
  SESSION_SECRET: {
    schema: z.string().min(32, 'must have 32 characters or more'),
    required: true,
    secret: true,
    quickStart: 'made once into .env',
    description: 'Signs the cookies: 32 random characters or more.',
  },
  SESSION_COOKIE_NAME: {
    schema: z.string().regex(/^[A-Za-z0-9_-]+$/),
    fallback: 'session',
    description: 'Name of the session cookie.',
  },
  KEYCLOAK_URL: {
    schema: webAddress,
    required: true,
    quickStart: 'started',
    description: 'Address of Keycloak as the browser reaches it, without /realms.',
  },
  KEYCLOAK_INTERNAL_URL: {
    schema: webAddress,
    description: 'Address of Keycloak as the app reaches it. Default: KEYCLOAK_URL.',
  },
  KEYCLOAK_REALM: { schema: z.string(), fallback: 'ops-center', description: 'The realm of the people.' },
  KEYCLOAK_VAULT_REALM: {
    schema: z.string(),
    description:
      'The realm of the vault records. Default in local mode: ops-center-vault; must be set when deployed.',
  },
  KEYCLOAK_WEB_CLIENT_ID: {
    schema: z.string(),
    fallback: 'ops-center-web',
    description: 'The client that people sign in through.',
  },
  KEYCLOAK_WEB_CLIENT_SECRET: {
    schema: z.string().min(1),
    required: true,
    secret: true,
    quickStart: 'random',
    description: 'Secret of KEYCLOAK_WEB_CLIENT_ID, the client that people sign in through.',
  },
  KEYCLOAK_SERVICE_CLIENT_ID: {
    schema: z.string(),
    fallback: 'ops-center-service',
    description: 'The client that reads users and events.',
  },
  KEYCLOAK_SERVICE_CLIENT_SECRET: {
    schema: z.string().min(1),
    required: true,
    secret: true,
    quickStart: 'random',
    description: 'Secret of KEYCLOAK_SERVICE_CLIENT_ID, the client that reads users and events.',
  },
  KEYCLOAK_VAULT_CLIENT_ID: {
    schema: z.string(),
    fallback: 'ops-center-vault',
    description: 'The client that writes vault records.',
  },
  KEYCLOAK_VAULT_CLIENT_SECRET: {
    schema: z.string().min(1),
    required: true,
    secret: true,
    quickStart: 'random',
    description: 'Secret of KEYCLOAK_VAULT_CLIENT_ID, the client that writes vault records.',
  },
  KEYCLOAK_PORT: {
    schema: port,
    fallback: '8080',
    description: 'Port of the Keycloak that the quick start starts; 0 picks a free one.',
  },
  API_CLIENT_IDS: {
    schema: list,
    fallback: '',
    description: 'Keycloak clients whose access tokens may call the API. Empty: bearer tokens are off.',
  },
  DEFAULT_LLM_PROVIDER: {
    schema: z.enum(PROVIDER_IDS),
    fallback: 'openrouter',
    quickStart: 'the demo upstream',
    description: 'The system default provider.',
  },
  DEFAULT_LLM_API_KEY: {
    schema: z.string().min(1),
    secret: true,
    quickStart: 'the demo upstream',
    description:
      "The system default's key. Unset when deployed: no system default. Set, it needs a model to pay for.",
  },
  DEFAULT_LLM_BASE_URL: {
    schema: webAddress,
    description: "What precedes /chat/completions for the system default. Default: the provider's own.",
  },
  DEFAULT_LLM_MODEL: {
    schema: z.string(),
    quickStart: 'demo',
    description: 'Serves requests that name no model, or `default`.',
  },
  DEFAULT_LLM_MODELS: {
    schema: list,
    description:
      'Models that the system default pays for; `*` = any. Default: DEFAULT_LLM_MODEL alone (`*` in local mode).',
  },
  DEFAULT_LLM_EXTRA_FIELDS: {
    schema: list,
    fallback: '',
    description: 'Request fields allowed on the system default beyond the built-in list.',
  },
  EGRESS_ALLOW: {
    schema: egressRules,
    description:
      'Private addresses that users may reach, as `CIDR-or-host[:port[-port]]`, comma-separated. Default in local mode: loopback and LAN; deployed: none. A name listed here is looked up as the system does it (mDNS, search domains); other names that users bring by the hosts file and DNS alone.',
  },
  EGRESS_DENY: {
    schema: egressRules,
    fallback: '',
    description: 'Addresses that users may never reach; wins over EGRESS_ALLOW.',
  },
  LOCAL_EXECUTION: {
    schema: flag,
    fallback: 'false',
    description:
      "Lets users with the realm role `ops-operator` run code on this installation's own machine, in a sandbox.",
  },
  UPSTREAM_CONNECT_TIMEOUT_MS: {
    schema: milliseconds,
    fallback: '5000',
    description: 'Connecting to a provider.',
  },
  UPSTREAM_FIRST_BYTE_TIMEOUT_MS: {
    schema: milliseconds,
    fallback: '120000',
    description: "A provider's first byte.",
  },
  UPSTREAM_IDLE_TIMEOUT_MS: {
    schema: milliseconds,
    fallback: '120000',
    description: 'Silence within an answer.',
  },
  RUNS_PER_USER: {
    schema: wholeNumber(1, 10_000, 'must be a whole number from 1 to 10000'),
    fallback: '8',
    description: 'Runs of one user that go on at once, in all processes together; more are queued.',
  },
  RUNS_PER_SERVER: {
    schema: wholeNumber(1, 10_000, 'must be a whole number from 1 to 10000'),
    fallback: '8',
    description: 'Runs that go on at once on one execution server; more are queued.',
  },
  RUNS_PER_INSTANCE: {
    schema: wholeNumber(1, 10_000, 'must be a whole number from 1 to 10000'),
    fallback: '32',
    description: 'Runs that go on at once in one process of the app; more are queued.',
  },
  RUN_HISTORY_DAYS: {
    schema: wholeNumber(1, 3_650, 'must be a whole number of days from 1 to 3650'),
    fallback: '30',
    description: 'How long runs are kept once they are over: what was run, what it printed, how it ended.',
  },
  SHUTDOWN_GRACE_MS: {
    schema: milliseconds,
    fallback: '30000',
    description: 'How long streams may finish on a stop.',
  },
} satisfies Record<string, Setting>;
