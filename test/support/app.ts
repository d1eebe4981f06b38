import { randomBytes } from 'node:crypto';
import { Writable } from 'node:stream';
import { Agent, errors, fetch, type RequestInit, type Response } from 'undici';
import { signInWithForms } from '../../src/cli/form-sign-in.ts';
import { freePort } from './free-port.ts';
import { readConfig, type Config, type Environment } from '../../src/config/config.ts';
import { reencryptCanary } from '../../src/keys/admin/canary.ts';
import { createDatabase as openDatabase } from '../../src/lib/postgres/database.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { createLog } from '../../src/lib/log.ts';
import { startServer } from '../../src/server.ts';
import { evidence } from './evidence.ts';
import { createDatabase } from './database.ts';
import { createWebClient, stack, type TestUser } from './stack.ts';

/** The whole app, listening, with the real Keycloak and its own database. */
export interface TestApp {
  url: string;
  config: Config;
  databaseUrl: string;
  ownerDatabaseUrl: string;
  /** All log lines as text. */
  logs(): string;
  /** The parsed log lines with one `event` name. */
  events(name: string): Record<string, unknown>[];
  /** Signs a user in through Keycloak's pages. @returns the session cookie's value. */
  signIn(user: TestUser): Promise<string>;
  /** Calls the app with the session cookie; `json` is sent as the body. */
  call(path: string, options?: CallOptions): Promise<Response>;
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface CallOptions extends Omit<RequestInit, 'body' | 'headers'> {
  session?: string;
  json?: unknown;
  body?: string | Buffer;
  headers?: Record<string, string>;
}

export interface TestAppOptions {
  /** Additional settings. */
  env?: Environment;
  /** For a second app on the same database: the values of the first. */
  shared?: Pick<TestApp, 'config'> & { databaseUrl: string; ownerDatabaseUrl: string };
}

/**
 * Idle connections close long before the server closes them (5 s), also when the process was busy for seconds. Otherwise
 * a request could be sent on a connection that the server is closing. undici measures up to 1 s with exact timers.
 */
const agent = new Agent({ keepAliveTimeout: 1_000, keepAliveMaxTimeout: 1_000 });

/** Starts the app in this process, in local mode. It has no system default unless `env` configures one. */
export async function startApp(options: TestAppOptions = {}): Promise<TestApp> {
  const port = await freePort();
  const publicUrl = `http://localhost:${port}`;
  const database = options.shared
    ? { appUrl: options.shared.databaseUrl, ownerUrl: options.shared.ownerDatabaseUrl }
    : await createDatabase();
  const webClient = await createWebClient(publicUrl);
  const lines: string[] = [];
  const config = readConfig(
    { ...(await environment(port, database.appUrl, webClient, options)), ...options.env },
    () => {
      throw new Error('tests use no secret files');
    },
  );
  registerSecrets(config);
  if (options.shared === undefined) await markAsInitialized(config);
  const log = createLog(
    'trace',
    new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        lines.push(chunk.toString());
        evidence.recordLog(chunk.toString());
        done();
      },
    }),
  );
  const server = await startServer(config, { log });
  const app: TestApp = {
    url: publicUrl,
    config,
    databaseUrl: database.appUrl,
    ownerDatabaseUrl: database.ownerUrl,
    logs: () => lines.join(''),
    events: (name) =>
      lines
        .map((line) => JSON.parse(line) as Record<string, unknown>)
        .filter((line) => line['event'] === name),
    signIn: ({ username, password }) =>
      signInWithForms({
        appUrl: publicUrl,
        keycloakUrl: config.keycloak.url,
        username,
        password,
        cookieName: config.sessionCookieName,
      }),
    call: (path, callOptions = {}) => call(publicUrl, path, callOptions),
    stop: () => server.stop(),
    [Symbol.asyncDispose]: () => server.stop(),
  };
  return app;
}

async function environment(
  port: number,
  databaseUrl: string,
  webClient: { id: string; secret: string },
  options: TestAppOptions,
): Promise<Environment> {
  const { keycloak } = stack;
  return {
    PORT: String(port),
    METRICS_PORT: String(await freePort()),
    PUBLIC_URL: `http://localhost:${port}`,
    DATABASE_URL: databaseUrl,
    ENCRYPTION_KEY: options.shared?.config.encryptionKeys.join(',') ?? fernetKey(),
    SESSION_SECRET: options.shared?.config.sessionSecret ?? randomBytes(32).toString('base64url'),
    KEYCLOAK_URL: keycloak.url,
    KEYCLOAK_WEB_CLIENT_ID: webClient.id,
    KEYCLOAK_WEB_CLIENT_SECRET: webClient.secret,
    KEYCLOAK_SERVICE_CLIENT_SECRET: keycloak.serviceClient.secret,
    KEYCLOAK_VAULT_CLIENT_SECRET: keycloak.vaultClient.secret,
    SHUTDOWN_GRACE_MS: '1000',
  };
}

/**
 * Each app has a new database and its own encryption key, but all tests share one vault. A first start is refused when
 * the vault contains keys that cannot be decrypted, so the app is made to look as if it had started before.
 */
async function markAsInitialized({ databaseUrl, encryptionKeys }: Config): Promise<void> {
  const options = { url: databaseUrl, max: 1, applicationName: 'test support', log: createLog('silent') };
  const database = openDatabase(options);
  await reencryptCanary(database, createKeyring(encryptionKeys.slice(0, 1)));
  await database.close();
}

function registerSecrets({ encryptionKeys, sessionSecret, systemDefault, keycloak }: Config): void {
  for (const key of encryptionKeys) evidence.registerSecret('encryption key', key);
  evidence.registerSecret('session secret', sessionSecret);
  evidence.registerSecret('system default key', systemDefault.apiKey ?? '');
  for (const { secret } of [keycloak.web, keycloak.service, keycloak.vault])
    evidence.registerSecret('client secret', secret);
}

/** A random Fernet key in the format of ENCRYPTION_KEY. */
export function fernetKey(): string {
  return `${randomBytes(32).toString('base64url')}=`;
}

async function call(base: string, path: string, options: CallOptions): Promise<Response> {
  try {
    return await callOnce(base, path, options);
  } catch (error) {
    // The app closes idle connections, e.g. of a user who was disabled. Browsers repeat a read as well.
    const isRead = options.method === undefined && options.json === undefined && options.body === undefined;
    if (!isRead || !isClosedByApp(error)) throw error;
    return callOnce(base, path, options);
  }
}

function isClosedByApp(error: unknown): boolean {
  const cause: unknown = error instanceof Error ? error.cause : undefined;
  return cause instanceof errors.SocketError && cause.message === 'other side closed';
}

function callOnce(
  base: string,
  path: string,
  { session, json, headers = {}, ...init }: CallOptions,
): Promise<Response> {
  return fetch(`${base}${path}`, {
    dispatcher: agent,
    redirect: 'manual',
    ...init,
    ...(json === undefined ? {} : { body: JSON.stringify(json) }),
    headers: {
      ...(json === undefined ? {} : { 'content-type': 'application/json' }),
      ...(session === undefined ? {} : { cookie: `session=${session}` }),
      ...headers,
    },
  });
}
