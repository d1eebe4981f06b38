import { randomBytes, randomUUID } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import {
  ConfigError,
  readConfig,
  type Environment,
  type ReadConfigOptions,
} from '../../src/config/config.ts';

const SECRET = 'x'.repeat(32);
const FERNET = `${'A'.repeat(43)}=`;
const noFile = () => {
  throw new Error('no file');
};

const local: Environment = {
  DATABASE_URL: 'postgres://app@127.0.0.1:5433/ops_center',
  ENCRYPTION_KEY: FERNET,
  SESSION_SECRET: SECRET,
  KEYCLOAK_URL: 'http://localhost:8080',
  KEYCLOAK_WEB_CLIENT_SECRET: SECRET,
  KEYCLOAK_SERVICE_CLIENT_SECRET: SECRET,
  KEYCLOAK_VAULT_CLIENT_SECRET: SECRET,
};
const RANDOM = {
  fernet: randomBytes(32).toString('base64url') + '=',
  hex: randomBytes(16).toString('hex'),
  base64: randomBytes(32).toString('base64url'),
  uuid: randomUUID(),
};
const deployed: Environment = {
  ...local,
  ENCRYPTION_KEY: RANDOM.fernet,
  SESSION_SECRET: RANDOM.base64,
  KEYCLOAK_WEB_CLIENT_SECRET: RANDOM.hex,
  KEYCLOAK_SERVICE_CLIENT_SECRET: RANDOM.uuid,
  KEYCLOAK_VAULT_CLIENT_SECRET: RANDOM.base64,
  DEPLOY_ENV: 'production',
  HOST: '0.0.0.0',
  PUBLIC_URL: 'https://ops.example.com',
  KEYCLOAK_URL: 'https://login.example.com',
  KEYCLOAK_VAULT_REALM: 'ops-center-vault',
};

function errorsOf(
  environment: Environment,
  readFile: (path: string) => string = noFile,
  options: ReadConfigOptions = {},
): readonly string[] {
  try {
    readConfig(environment, readFile, options);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.errors;
    throw error;
  }
}

describe('readConfig', () => {
  it('derives the mode from DEPLOY_ENV only', () => {
    expect(readConfig(local, noFile)).toMatchObject({ mode: 'local', publicUrl: 'http://localhost:3000' });
    expect(readConfig({ ...local, DEPLOY_ENV: '' }, noFile).mode).toBe('local');
    expect(readConfig(deployed, noFile)).toMatchObject({
      mode: 'deployed',
      publicUrl: 'https://ops.example.com',
    });
  });

  it('names the session cookie so that no other host can set it when deployed', () => {
    expect(readConfig(local, noFile).sessionCookieName).toBe('session');
    expect(readConfig(deployed, noFile).sessionCookieName).toBe('__Host-session');
    for (const environment of [local, deployed])
      expect(readConfig({ ...environment, SESSION_COOKIE_NAME: 'mine' }, noFile).sessionCookieName).toBe(
        'mine',
      );
    for (const name of ['__Host-session', '__Secure-x', '__host-x'])
      expect(errorsOf({ ...local, SESSION_COOKIE_NAME: name })).toEqual([
        expect.stringContaining('SESSION_COOKIE_NAME'),
      ]);
  });

  it('lists all errors at once and contains no value', () => {
    const errors = errorsOf({
      PORT: 'many',
      LOG_LEVEL: 'loud',
      ENCRYPTION_KEY: 'geheim',
      SESSION_SECRET: 'short',
    });
    for (const name of [
      'PORT',
      'LOG_LEVEL',
      'ENCRYPTION_KEY',
      'SESSION_SECRET',
      'DATABASE_URL',
      'KEYCLOAK_URL',
      'KEYCLOAK_VAULT_CLIENT_SECRET',
    ]) {
      expect(errors).toContainEqual(expect.stringMatching(new RegExp(`^${name} `)));
    }
    expect(errors.join()).not.toMatch(/geheim|short|many|loud/);
  });

  it('has limits that fit the SDKs and the balancers in front', () => {
    const config = readConfig(local, () => '');
    // The SDKs' own limit is 600 s; balancers keep idle connections for 60 s.
    expect(config.timeouts).toMatchObject({ firstByteMs: 600_000, keepAliveMs: 75_000 });
    expect(config.requestsPerUser).toBe(100);
  });

  it('reads a secret from the file in NAME_FILE, without its line break', () => {
    const { SESSION_SECRET: _direct, ...rest } = local;
    const config = readConfig({ ...rest, SESSION_SECRET_FILE: '/run/secrets/session' }, (path) =>
      path === '/run/secrets/session' ? `${'y'.repeat(40)}\n` : '',
    );
    expect(config.sessionSecret).toBe('y'.repeat(40));
    // Local execution hides these files from users' programs.
    expect(config.secretFiles).toEqual(['/run/secrets/session']);
    expect(errorsOf({ ...rest, SESSION_SECRET_FILE: '/nowhere' })).toContainEqual(
      expect.stringContaining('SESSION_SECRET_FILE'),
    );
    expect(errorsOf({ ...local, SESSION_SECRET_FILE: '/x' }, () => SECRET)).toContainEqual(
      expect.stringContaining('both set'),
    );
  });

  it.each(['0.0.0.0', '::', '192.168.1.10', 'ops.example.com'])(
    'refuses to listen on %s in local mode',
    (HOST) => {
      expect(errorsOf({ ...local, HOST })).toEqual([expect.stringContaining('HOST is not loopback')]);
      expect(errorsOf({ ...local, HOST, ALLOW_LOCAL_MODE_EXPOSED: 'true' })).toEqual([]);
    },
  );

  it('refuses a public address other than loopback in local mode, even with ALLOW_LOCAL_MODE_EXPOSED', () => {
    const environment = {
      ...local,
      PUBLIC_URL: 'http://192.168.1.10:3000',
      ALLOW_LOCAL_MODE_EXPOSED: 'true',
    };
    expect(errorsOf(environment)).toEqual([expect.stringContaining('PUBLIC_URL is not loopback')]);
  });

  it.each<[string, Environment]>([
    ['PUBLIC_URL is not set', { PUBLIC_URL: '' }],
    ['PUBLIC_URL must be https', { PUBLIC_URL: 'http://ops.example.com' }],
    ['KEYCLOAK_URL must be https', { KEYCLOAK_URL: 'http://login.example.com' }],
    ['KEYCLOAK_INTERNAL_URL must be https', { KEYCLOAK_INTERNAL_URL: 'http://keycloak:8080' }],
    ['KEYCLOAK_VAULT_REALM is not set', { KEYCLOAK_VAULT_REALM: '' }],
    ['KEYCLOAK_WEB_CLIENT_SECRET must have 32', { KEYCLOAK_WEB_CLIENT_SECRET: 'short' }],
    ['DEBUG=true and DEPLOY_ENV', { DEBUG: 'true' }],
    ['PUBLIC_URL must be an http or https address', { PUBLIC_URL: 'ops.example.com' }],
    ['DEFAULT_LLM_PROVIDER cannot be demo', { DEFAULT_LLM_PROVIDER: 'demo' }],
    ['UPSTREAM_DEMO_URL cannot be set', { UPSTREAM_DEMO_URL: 'https://demo.example.com/v1' }],
    ['DEFAULT_LLM_API_KEY is set but pays for no model', { DEFAULT_LLM_API_KEY: 'sk-or-system' }],
    ['METRICS_PORT must differ from PORT', { PORT: '4000', METRICS_PORT: '4000' }],
  ])('refuses a deployment where %s', (error, change) => {
    expect(errorsOf({ ...deployed, ...change })).toEqual([expect.stringContaining(error)]);
  });

  it('accepts a system default with a model, or no system default', () => {
    const key = { DEFAULT_LLM_API_KEY: 'sk-or-system' };
    expect(errorsOf({ ...deployed, ...key, DEFAULT_LLM_MODEL: 'a/b' })).toEqual([]);
    expect(errorsOf({ ...deployed, ...key, DEFAULT_LLM_MODELS: 'a/b' })).toEqual([]);
    expect(errorsOf(deployed)).toEqual([]);
    expect(errorsOf({ ...local, ...key })).toEqual([]);
  });

  it.each([
    ['local', local],
    ['deployed', deployed],
  ])('refuses port 0 only for a process that listens on the configured ports (%s)', (_mode, environment) => {
    const zeros = { ...environment, PORT: '0', METRICS_PORT: '0' };
    expect(errorsOf(zeros)).toEqual([]);
    expect(errorsOf(zeros, noFile, { isListening: true })).toEqual([
      expect.stringMatching(/^PORT must not be 0/),
      expect.stringMatching(/^METRICS_PORT must not be 0/),
    ]);
    expect(errorsOf(environment, noFile, { isListening: true })).toEqual([]);
  });

  it.each([
    'PUBLIC_URL',
    'INTERNAL_URL',
    'KEYCLOAK_URL',
    'KEYCLOAK_INTERNAL_URL',
    'DEFAULT_LLM_BASE_URL',
    'UPSTREAM_OPENAI_URL',
  ])('refuses a query, a fragment, a user and another scheme in %s, and contains no value', (name) => {
    const one = (value: string) => errorsOf({ ...local, [name]: value });
    for (const value of ['http://localhost:1?geheim', 'http://localhost:1/?', 'http://localhost:1#geheim'])
      expect(one(value)).toEqual([`${name} must have no query and no fragment`]);
    for (const value of ['http://me:geheim@localhost:1', 'http://@localhost:1'])
      expect(one(value)).toEqual([`${name} must have no user name and no password`]);
    for (const value of ['ftp://localhost:1', 'localhost:1', 'geheim'])
      expect(one(value)).toEqual([`${name} must be an http or https address`]);
    expect(one('http://localhost:1/')).toEqual([]);
  });

  it.each(['DATABASE_URL', 'MIGRATION_DATABASE_URL'])(
    'refuses a query in %s that overrides host or port, and contains no value',
    (name) => {
      const one = (query: string) =>
        errorsOf({ ...local, [name]: `postgres://app@127.0.0.1:5433/ops${query}` });
      for (const query of ['?host=geheim', '?sslmode=require&port=1', '?hostaddr=10.0.0.1', '?%68ost=geheim'])
        expect(one(query)).toEqual([
          `${name} must name host and port before the path: host, hostaddr and port are not accepted in its query`,
        ]);
      expect(one('?sslmode=require')).toEqual([]);
    },
  );

  it('reads host and port of the database from the address only', () => {
    const address = (value: string) => readConfig({ ...local, DATABASE_URL: value }, noFile).databaseUrl;
    expect(address('postgres://app@db.internal/ops')).toBe('postgres://app@db.internal:5432/ops');
    expect(address('postgres://app@db.internal:6543/ops')).toBe('postgres://app@db.internal:6543/ops');
    expect(errorsOf({ ...local, DATABASE_URL: 'postgres:///ops' })).toEqual([
      'DATABASE_URL must name a host',
    ]);
  });

  it('refuses a path in PUBLIC_URL, but not in addresses of Keycloak and upstreams', () => {
    expect(errorsOf({ ...deployed, PUBLIC_URL: 'https://example.com/ops' })).toEqual([
      expect.stringContaining('PUBLIC_URL must have no path'),
    ]);
    expect(errorsOf({ ...deployed, KEYCLOAK_URL: 'https://example.com/auth' })).toEqual([]);
    expect(errorsOf({ ...deployed, UPSTREAM_OPENAI_URL: 'https://example.com/@a/v1' })).toEqual([]);
  });

  it('describes a missing setting in a sentence that is understandable on its own', () => {
    const errors = errorsOf({});
    expect(errors).toContain(
      'KEYCLOAK_WEB_CLIENT_SECRET is not set: Secret of KEYCLOAK_WEB_CLIENT_ID, the client for the sign-in of users.',
    );
    for (const error of errors) expect(error).not.toMatch(/: (Its|It|The same)\b/);
  });

  it('states the allowed values of a number once', () => {
    for (const PORT of ['many', '1.5', '-1', '65536'])
      expect(errorsOf({ ...local, PORT })).toEqual(['PORT must be a port number from 0 to 65535']);
  });

  it('allows only DEFAULT_LLM_MODEL when deployed, and any model in local mode', () => {
    const model = { DEFAULT_LLM_MODEL: 'openai/gpt-4o-mini' };
    expect(readConfig({ ...deployed, ...model }, noFile).systemDefault.models).toEqual([
      'openai/gpt-4o-mini',
    ]);
    expect(readConfig({ ...local, ...model }, noFile).systemDefault.models).toEqual(['*']);
    expect(
      readConfig({ ...deployed, ...model, DEFAULT_LLM_MODELS: 'a, b' }, noFile).systemDefault.models,
    ).toEqual(['a', 'b']);
  });

  it('reads upstream addresses by provider and refuses unknown names', () => {
    expect(readConfig({ ...local, UPSTREAM_OPENAI_URL: 'http://127.0.0.1:9/v1/' }, noFile).upstreams).toEqual(
      { openai: 'http://127.0.0.1:9/v1' },
    );
    expect(errorsOf({ ...local, UPSTREAM_OPENAY_URL: 'http://x' })).toEqual([
      expect.stringContaining('names no provider'),
    ]);
  });

  describe.each(['UPSTREAM_OPENAI_URL', 'UPSTREAM_CUSTOM_URL', 'DEFAULT_LLM_BASE_URL'])(
    'refuses in %s the path of a call, which calls append themselves',
    (name) => {
      it.each([
        ['/v1/chat/completions', '/chat/completions'],
        ['/v1/chat/completions//', '/chat/completions'],
        ['/v1/completions', '/completions'],
        ['/v1/responses', '/responses'],
        ['/v1/embeddings', '/embeddings'],
        ['/models', '/models'],
        ['/v1/messages', '/messages'],
        ['/v1/messages/count_tokens', '/messages/count_tokens'],
      ])('%s', (path, end) => {
        expect(errorsOf({ ...local, [name]: `https://llm.example.com${path}` })).toEqual([
          `${name} must not end in ${end}: leave it out, since calls append it`,
        ]);
      });

      it.each(['', '/', '/v1', '/openai/v1/', '/messages', '/chat', '/my-models'])('but not %j', (path) => {
        expect(errorsOf({ ...local, [name]: `https://llm.example.com${path}` })).toEqual([]);
      });
    },
  );

  it('refuses an invalid egress rule', () => {
    expect(errorsOf({ ...local, EGRESS_ALLOW: '10.0.0.0/33' })).toEqual([
      expect.stringContaining('EGRESS_ALLOW'),
    ]);
  });
});
