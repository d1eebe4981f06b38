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
const deployed: Environment = {
  ...local,
  DEPLOY_ENV: 'production',
  HOST: '0.0.0.0',
  PUBLIC_URL: 'https://ops.example.com',
  KEYCLOAK_URL: 'https://login.example.com',
  KEYCLOAK_VAULT_REALM: 'ops-center-vault',
};

function faultsOf(
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
  it('derives the mode from DEPLOY_ENV alone', () => {
    expect(readConfig(local, noFile)).toMatchObject({ mode: 'local', publicUrl: 'http://localhost:3000' });
    expect(readConfig({ ...local, DEPLOY_ENV: '' }, noFile).mode).toBe('local');
    expect(readConfig(deployed, noFile)).toMatchObject({
      mode: 'deployed',
      publicUrl: 'https://ops.example.com',
    });
  });

  it('names every fault at once and repeats no value', () => {
    const faults = faultsOf({
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
      expect(faults).toContainEqual(expect.stringMatching(new RegExp(`^${name} `)));
    }
    expect(faults.join()).not.toMatch(/geheim|short|many|loud/);
  });

  it('takes a secret from the file in NAME_FILE, without its line end', () => {
    const { SESSION_SECRET: _direct, ...rest } = local;
    const config = readConfig({ ...rest, SESSION_SECRET_FILE: '/run/secrets/session' }, (path) =>
      path === '/run/secrets/session' ? `${'y'.repeat(40)}\n` : '',
    );
    expect(config.sessionSecret).toBe('y'.repeat(40));
    // For those who keep programs away from it.
    expect(config.secretFiles).toEqual(['/run/secrets/session']);
    expect(faultsOf({ ...rest, SESSION_SECRET_FILE: '/nowhere' })).toContainEqual(
      expect.stringContaining('SESSION_SECRET_FILE'),
    );
    expect(faultsOf({ ...local, SESSION_SECRET_FILE: '/x' }, () => SECRET)).toContainEqual(
      expect.stringContaining('both set'),
    );
  });

  it.each(['0.0.0.0', '::', '192.168.1.10', 'ops.example.com'])(
    'refuses to listen on %s in local mode',
    (HOST) => {
      expect(faultsOf({ ...local, HOST })).toEqual([expect.stringContaining('HOST is not loopback')]);
      expect(faultsOf({ ...local, HOST, ALLOW_LOCAL_MODE_EXPOSED: 'true' })).toEqual([]);
    },
  );

  it('refuses a public address beyond loopback in local mode, whatever is allowed for listeners', () => {
    const environment = {
      ...local,
      PUBLIC_URL: 'http://192.168.1.10:3000',
      ALLOW_LOCAL_MODE_EXPOSED: 'true',
    };
    expect(faultsOf(environment)).toEqual([expect.stringContaining('PUBLIC_URL is not loopback')]);
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
  ])('refuses a deployment where %s', (fault, change) => {
    expect(faultsOf({ ...deployed, ...change })).toEqual([expect.stringContaining(fault)]);
  });

  it('takes a system default that has a model to pay for, or none at all', () => {
    const key = { DEFAULT_LLM_API_KEY: 'sk-or-system' };
    expect(faultsOf({ ...deployed, ...key, DEFAULT_LLM_MODEL: 'a/b' })).toEqual([]);
    expect(faultsOf({ ...deployed, ...key, DEFAULT_LLM_MODELS: 'a/b' })).toEqual([]);
    expect(faultsOf(deployed)).toEqual([]);
    expect(faultsOf({ ...local, ...key })).toEqual([]);
  });

  it.each([
    ['local', local],
    ['deployed', deployed],
  ])('refuses a port of 0 only for a process that listens as configured (%s)', (_mode, environment) => {
    const zeros = { ...environment, PORT: '0', METRICS_PORT: '0' };
    expect(faultsOf(zeros)).toEqual([]);
    expect(faultsOf(zeros, noFile, { isListening: true })).toEqual([
      expect.stringMatching(/^PORT must not be 0/),
      expect.stringMatching(/^METRICS_PORT must not be 0/),
    ]);
    expect(faultsOf(environment, noFile, { isListening: true })).toEqual([]);
  });

  it.each([
    'PUBLIC_URL',
    'INTERNAL_URL',
    'KEYCLOAK_URL',
    'KEYCLOAK_INTERNAL_URL',
    'DEFAULT_LLM_BASE_URL',
    'UPSTREAM_OPENAI_URL',
  ])('refuses a query, a fragment, a user and another scheme in %s, and repeats no value', (name) => {
    const one = (value: string) => faultsOf({ ...local, [name]: value });
    for (const value of ['http://localhost:1?geheim', 'http://localhost:1/?', 'http://localhost:1#geheim'])
      expect(one(value)).toEqual([`${name} must have no query and no fragment`]);
    for (const value of ['http://me:geheim@localhost:1', 'http://@localhost:1'])
      expect(one(value)).toEqual([`${name} must have no user name and no password`]);
    for (const value of ['ftp://localhost:1', 'localhost:1', 'geheim'])
      expect(one(value)).toEqual([`${name} must be an http or https address`]);
    expect(one('http://localhost:1/')).toEqual([]);
  });

  it.each(['DATABASE_URL', 'MIGRATION_DATABASE_URL'])(
    'refuses a query in %s that leads to another host or port than the address says, and repeats no value',
    (name) => {
      const one = (query: string) =>
        faultsOf({ ...local, [name]: `postgres://app@127.0.0.1:5433/ops${query}` });
      for (const query of ['?host=geheim', '?sslmode=require&port=1', '?hostaddr=10.0.0.1', '?%68ost=geheim'])
        expect(one(query)).toEqual([
          `${name} must name host and port before the path: host, hostaddr and port are not accepted in its query`,
        ]);
      expect(one('?sslmode=require')).toEqual([]);
    },
  );

  it('takes neither host nor port of the database from anywhere else', () => {
    const address = (value: string) => readConfig({ ...local, DATABASE_URL: value }, noFile).databaseUrl;
    expect(address('postgres://app@db.internal/ops')).toBe('postgres://app@db.internal:5432/ops');
    expect(address('postgres://app@db.internal:6543/ops')).toBe('postgres://app@db.internal:6543/ops');
    expect(faultsOf({ ...local, DATABASE_URL: 'postgres:///ops' })).toEqual([
      'DATABASE_URL must name a host',
    ]);
  });

  it('refuses a path in PUBLIC_URL, where Keycloak and upstreams may have one', () => {
    expect(faultsOf({ ...deployed, PUBLIC_URL: 'https://example.com/ops' })).toEqual([
      expect.stringContaining('PUBLIC_URL must have no path'),
    ]);
    expect(faultsOf({ ...deployed, KEYCLOAK_URL: 'https://example.com/auth' })).toEqual([]);
    expect(faultsOf({ ...deployed, UPSTREAM_OPENAI_URL: 'https://example.com/@a/v1' })).toEqual([]);
  });

  it('tells of a missing setting in a sentence that stands alone', () => {
    const faults = faultsOf({});
    expect(faults).toContain(
      'KEYCLOAK_WEB_CLIENT_SECRET is not set: Secret of KEYCLOAK_WEB_CLIENT_ID, the client that people sign in through.',
    );
    for (const fault of faults) expect(fault).not.toMatch(/: (Its|It|The same)\b/);
  });

  it('says once what a number must be', () => {
    for (const PORT of ['many', '1.5', '-1', '65536'])
      expect(faultsOf({ ...local, PORT })).toEqual(['PORT must be a port number from 0 to 65535']);
  });

  it('pays for DEFAULT_LLM_MODEL alone when deployed, for anything in local mode', () => {
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
    expect(faultsOf({ ...local, UPSTREAM_OPENAY_URL: 'http://x' })).toEqual([
      expect.stringContaining('names no provider'),
    ]);
  });

  it('refuses an egress rule that cannot be read', () => {
    expect(faultsOf({ ...local, EGRESS_ALLOW: '10.0.0.0/33' })).toEqual([
      expect.stringContaining('EGRESS_ALLOW'),
    ]);
  });
});
