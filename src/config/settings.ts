import { z } from 'zod';
import { parseEgressRule } from '../lib/net/addresses.ts';
import { findCallPath } from '../providers/address.ts';
import { PROVIDER_IDS } from '../providers/index.ts';

const flag = z.stringbool({
  truthy: ['true', '1'],
  falsy: ['false', '0', ''],
  error: 'must be true or false',
});
const port = wholeNumber(0, 65_535, 'must be a port number from 0 to 65535');
const milliseconds = wholeNumber(1, 2 ** 31 - 1, 'must be a whole number of milliseconds from 1 on');
/**
 * An http or https address without trailing slashes. Paths are appended to it, so a query or a fragment is refused. A
 * user name is refused, because it would be sent to the host.
 */
const webAddress = z
  .url({ protocol: /^https?$/, error: 'must be an http or https address' })
  .refine((url) => !/[?#\\]/.test(url), 'must have no query and no fragment')
  .refine((url) => !/^https?:\/\/[^/]*@/i.test(url), 'must have no user name and no password')
  .transform((url) => url.replace(/\/+$/, ''));
/** A base URL of a provider, without the path of a call, which each call appends. */
export const providerAddress = webAddress.refine((url) => findCallPathIn(url) === undefined, {
  error: ({ input }) =>
    `must not end in ${findCallPathIn(String(input))}: leave it out, since calls append it`,
});
/** A web address without a path. */
const webOrigin = webAddress.refine(
  (url) => !/^https?:\/\/[^/]+\//i.test(url),
  'must have no path: the app is served at the root',
);
/**
 * An address of Postgres. The driver would let the query override host and port, and the check of users' endpoints
 * against the database's address would miss that.
 */
const postgresAddress = z
  .url({ protocol: /^postgres(ql)?$/, error: 'must be a postgres:// address' })
  .refine(
    (url) => !['host', 'hostaddr', 'port'].some((name) => URL.parse(url)?.searchParams.has(name)),
    'must name host and port before the path: host, hostaddr and port are not accepted in its query',
  )
  .refine((url) => URL.parse(url)?.hostname !== '', 'must name a host')
  // Otherwise the driver would read a missing port from the environment, and the check of endpoints would not know it.
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

function findCallPathIn(url: string): string | undefined {
  return findCallPath(URL.parse(url)?.pathname ?? '');
}

function wholeNumber(min: number, max: number, error: string) {
  return z.coerce.number({ error }).refine((n) => Number.isInteger(n) && n >= min && n <= max, { error });
}

/** How one setting is read and documented. */
export interface Setting {
  schema: z.ZodType;
  /** Shown in .env.example, in the README and in the error for a missing required setting; understandable on its own. */
  description: string;
  /** The default, in the form of an environment variable. */
  fallback?: string;
  secret?: true;
  required?: true;
  /** The value that the quick start sets; shown as the default. */
  quickStart?: string;
}

/** All settings, in the order of the documentation. */
export const SETTINGS = {
  DEPLOY_ENV: { schema: z.string(), description: 'Unset: local mode. Any value: deployed mode.' },
  DEBUG: {
    schema: flag,
    fallback: 'false',
    description: 'Allowed in local mode only: with DEPLOY_ENV the app does not start.',
  },
  PORT: {
    schema: port,
    fallback: '3000',
    description: 'Port of the app. In the quick start, 0 chooses a free port.',
  },
  HOST: { schema: z.string(), fallback: '127.0.0.1', description: 'Address that the app listens on.' },
  PUBLIC_URL: {
    schema: webOrigin,
    description:
      'Address of the app for browsers, without a path. Required when deployed. Default in local mode: `http://localhost:PORT`.',
  },
  INTERNAL_URL: {
    schema: webAddress,
    description: 'Address of the app for Keycloak, for back-channel logout. Default: PUBLIC_URL.',
  },
  ALLOW_LOCAL_MODE_EXPOSED: {
    schema: flag,
    fallback: 'false',
    description: 'Allows local mode to listen on addresses other than loopback.',
  },
  TRUST_PROXY: {
    schema: wholeNumber(0, 100, 'must be the number of reverse proxies'),
    fallback: '0',
    description: 'Number of reverse proxies in front of the app.',
  },
  METRICS_PORT: {
    schema: port,
    fallback: '9464',
    description:
      'Port for metrics and health details, on the address HOST (loopback unless it is changed). In the quick start, 0 chooses a free port.',
  },
  LOG_LEVEL: {
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']),
    fallback: 'info',
    description: 'Minimum level of logged messages.',
  },
  DATA_DIR: {
    schema: z.string(),
    fallback: '.data',
    description: 'Folder for data of the quick start: database, Keycloak, their passwords.',
  },
  DATABASE_URL: {
    schema: postgresAddress,
    required: true,
    secret: true,
    quickStart: 'started',
    description: "Address of Postgres with the app's role (a member of ops_center_app).",
  },
  MIGRATION_DATABASE_URL: {
    schema: postgresAddress,
    secret: true,
    quickStart: 'started',
    description:
      'Address of Postgres with the role that owns the schema. Unset: the app does not start while migrations are pending.',
  },
  POSTGRES_PORT: {
    schema: port,
    fallback: '5433',
    description: "Port of the quick start's database; 0 chooses a free one.",
  },
  ENCRYPTION_KEY: {
    schema: fernetKeys,
    required: true,
    secret: true,
    quickStart: 'generated into .env',
    description:
      'Fernet keys, comma-separated. The first one encrypts, all decrypt. If they are lost, all stored keys are lost. Deployed: the first one must look random.',
  },
  SESSION_SECRET: {
    schema: z.string().min(32, 'must have 32 characters or more'),
    required: true,
    secret: true,
    quickStart: 'generated into .env',
    description: 'Signs the cookies. At least 32 random characters; deployed, a guessable value is refused.',
  },
  SESSION_COOKIE_NAME: {
    schema: z.string().regex(/^[A-Za-z0-9_-]+$/),
    description:
      'Name of the session cookie. Default: `__Host-session`, which no other host can set; in local mode `session`.',
  },
  KEYCLOAK_URL: {
    schema: webAddress,
    required: true,
    quickStart: 'started',
    description: 'Address of Keycloak for browsers, without /realms.',
  },
  KEYCLOAK_INTERNAL_URL: {
    schema: webAddress,
    description: 'Address of Keycloak for the app. Default: KEYCLOAK_URL.',
  },
  KEYCLOAK_REALM: { schema: z.string(), fallback: 'ops-center', description: 'Realm of the users.' },
  KEYCLOAK_VAULT_REALM: {
    schema: z.string(),
    description:
      'Realm of the vault records. Required when deployed. Default in local mode: ops-center-vault.',
  },
  KEYCLOAK_WEB_CLIENT_ID: {
    schema: z.string(),
    fallback: 'ops-center-web',
    description: 'Client for the sign-in of users.',
  },
  KEYCLOAK_WEB_CLIENT_SECRET: {
    schema: z.string().min(1),
    required: true,
    secret: true,
    quickStart: 'random',
    description: 'Secret of KEYCLOAK_WEB_CLIENT_ID, the client for the sign-in of users.',
  },
  KEYCLOAK_SERVICE_CLIENT_ID: {
    schema: z.string(),
    fallback: 'ops-center-service',
    description: 'Client that reads users and events.',
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
    description: 'Client that writes vault records.',
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
    description: "Port of the quick start's Keycloak; 0 chooses a free one.",
  },
  API_CLIENT_IDS: {
    schema: list,
    fallback: '',
    description:
      'Keycloak clients whose access tokens the API accepts. Empty: the API accepts no bearer tokens.',
  },
  DEFAULT_LLM_PROVIDER: {
    schema: z.enum(PROVIDER_IDS),
    fallback: 'openrouter',
    quickStart: 'the demo upstream',
    description: 'Provider of the system default.',
  },
  DEFAULT_LLM_API_KEY: {
    schema: z.string().min(1),
    secret: true,
    quickStart: 'the demo upstream',
    description:
      'API key of the system default. Unset when deployed: no system default. Set when deployed: needs DEFAULT_LLM_MODEL or DEFAULT_LLM_MODELS.',
  },
  DEFAULT_LLM_BASE_URL: {
    schema: providerAddress,
    description: "Base URL of the system default, without /chat/completions. Default: the provider's own.",
  },
  DEFAULT_LLM_MODEL: {
    schema: z.string(),
    quickStart: 'demo',
    description: 'Model for requests without a model or with the model `default`.',
  },
  DEFAULT_LLM_MODELS: {
    schema: list,
    description:
      'Models that the system default pays for; `*` = any. Default: DEFAULT_LLM_MODEL only (`*` in local mode).',
  },
  DEFAULT_LLM_EXTRA_FIELDS: {
    schema: list,
    fallback: '',
    description: 'Request fields that the system default accepts in addition to the built-in list.',
  },
  EGRESS_ALLOW: {
    schema: egressRules,
    description:
      "Private addresses that users' endpoints and execution servers may use, as `CIDR-or-host[:port[-port]]`, comma-separated. Default in local mode: loopback and LAN; deployed: none. Names listed here are resolved by the system (mDNS, search domains); other names from users by the hosts file and DNS only.",
  },
  EGRESS_DENY: {
    schema: egressRules,
    fallback: '',
    description:
      "Addresses that users' endpoints and execution servers must not use. Has priority over EGRESS_ALLOW.",
  },
  LOCAL_EXECUTION: {
    schema: flag,
    fallback: 'false',
    description:
      "Allows users with the realm role `ops-operator` to run code on this installation's machine, in a sandbox.",
  },
  LOCAL_MAX_MEMORY_BYTES: {
    schema: wholeNumber(2 ** 24, 2 ** 50, 'must be a whole number of bytes from 16777216 on'),
    description:
      'Memory that one local run may use at most. A run that requests more is refused; one that requests nothing gets 1 GiB, or this where it is less.',
  },
  LOCAL_MAX_CPUS: {
    schema: z.coerce
      .number({ error: 'must be a number from 0.01 to 1024' })
      .min(0.01, 'must be a number from 0.01 to 1024')
      .max(1_024, 'must be a number from 0.01 to 1024'),
    description:
      'CPUs that one local run may use at most, also a run that requests none. Needs the control group controller cpu.',
  },
  LOCAL_MAX_PIDS: {
    schema: wholeNumber(8, 4_194_304, 'must be a whole number from 8 to 4194304'),
    description:
      'Processes and threads that one local run may have at most. A run that requests more is refused; one that requests nothing gets 256, or this where it is less.',
  },
  UPSTREAM_CONNECT_TIMEOUT_MS: {
    schema: milliseconds,
    fallback: '5000',
    description: 'Time limit for connecting to a provider.',
  },
  UPSTREAM_FIRST_BYTE_TIMEOUT_MS: {
    schema: milliseconds,
    fallback: '600000',
    description:
      "Time limit for the first byte of a provider's response. The SDKs of OpenAI and Anthropic have the same limit; with a shorter one they would send the request again, and it would be paid again.",
  },
  UPSTREAM_IDLE_TIMEOUT_MS: {
    schema: milliseconds,
    fallback: '120000',
    description: "Maximum pause within a provider's response.",
  },
  STREAM_SILENCE_MS: {
    schema: milliseconds,
    fallback: '15000',
    description:
      'How long a streamed response to a client is silent at most, before the provider answers and afterwards. Then a comment is sent, so that proxies in front of the app (often 60 s) do not close the connection.',
  },
  REQUESTS_PER_USER: {
    schema: wholeNumber(1, 10_000, 'must be a whole number from 1 to 10000'),
    fallback: '100',
    description:
      'Open requests to `/v1` of one user in one process of the app. Up to 100 further ones wait for 2 s, the rest get a 429.',
  },
  RUNS_PER_USER: {
    schema: wholeNumber(1, 10_000, 'must be a whole number from 1 to 10000'),
    fallback: '8',
    description: 'Concurrent runs of one user, in all processes together. Further runs are queued.',
  },
  RUNS_PER_SERVER: {
    schema: wholeNumber(1, 10_000, 'must be a whole number from 1 to 10000'),
    fallback: '8',
    description: 'Concurrent runs on one execution server. Further runs are queued.',
  },
  RUNS_PER_INSTANCE: {
    schema: wholeNumber(1, 10_000, 'must be a whole number from 1 to 10000'),
    fallback: '32',
    description: 'Concurrent runs in one process of the app. Further runs are queued.',
  },
  RUN_HISTORY_DAYS: {
    schema: wholeNumber(1, 3_650, 'must be a whole number of days from 1 to 3650'),
    fallback: '30',
    description: 'How long finished runs are kept: their code, output and exit.',
  },
  AUDIT_DAYS: {
    schema: wholeNumber(1, 36_500, 'must be a whole number of days from 1 to 36500'),
    fallback: '400',
    description:
      'How long audit events are kept. `npm run ops -- audit prune` deletes older ones; in local mode a start with MIGRATION_DATABASE_URL does, too.',
  },
  USAGE_DAYS: {
    schema: wholeNumber(1, 36_500, 'must be a whole number of days from 1 to 36500'),
    fallback: '365',
    description:
      'How long each request is kept in the ledger. The app deletes older ones; the totals of their days are kept for ever.',
  },
  KEEP_ALIVE_TIMEOUT_MS: {
    schema: milliseconds,
    fallback: '75000',
    description:
      'How long an idle connection of a client stays open. It must be longer than in the proxy in front of the app (often 60 s), or requests on idle connections are lost.',
  },
  SHUTDOWN_GRACE_MS: {
    schema: milliseconds,
    fallback: '30000',
    description: 'Time for open streams to finish when the app stops.',
  },
} satisfies Record<string, Setting>;
