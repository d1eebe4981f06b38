import { describe, expect, it } from '@jest/globals';
import type { RunningKeycloak } from '../../../src/dev/quickstart/keycloak/keycloak.ts';
import { planStart, toStackSettings, toDemoSettings } from '../../../src/dev/quickstart/plan.ts';
import {
  overrideSettings,
  loadConfig,
  assertLocalMode,
  dropEmptySettings,
} from '../../../src/cli/settings.ts';

const generated = { ENCRYPTION_KEY: `${'A'.repeat(43)}=`, SESSION_SECRET: 's'.repeat(32) };
const ownKeycloak = {
  KEYCLOAK_URL: 'http://localhost:9999',
  KEYCLOAK_WEB_CLIENT_SECRET: 'w',
  KEYCLOAK_SERVICE_CLIENT_SECRET: 's',
  KEYCLOAK_VAULT_CLIENT_SECRET: 'v',
};

describe('the plan of a quick start', () => {
  it('starts every server if nothing is configured', () => {
    expect(planStart(generated)).toMatchObject({
      postgres: true,
      keycloak: true,
      demoUpstream: true,
      demoIsDefault: true,
      postgresPort: 5433,
      keycloakPort: 8080,
    });
  });

  it.each([
    ['DATABASE_URL', { DATABASE_URL: 'postgres://a@127.0.0.1/b' }, 'postgres'],
    ['KEYCLOAK_URL', ownKeycloak, 'keycloak'],
    ['UPSTREAM_DEMO_URL', { UPSTREAM_DEMO_URL: 'http://127.0.0.1:1/v1' }, 'demoUpstream'],
    ['DEFAULT_LLM_API_KEY', { DEFAULT_LLM_API_KEY: 'sk-or-mine' }, 'demoIsDefault'],
  ] as const)('does not start the server that %s configures', (_name, settings, part) => {
    const plan = planStart({ ...generated, ...settings });
    expect(plan[part]).toBe(false);
    const others = (['postgres', 'keycloak', 'demoUpstream', 'demoIsDefault'] as const).filter(
      (name) => name !== part,
    );
    for (const other of others) expect(plan[other]).toBe(true);
  });

  it('treats an empty setting as unset', () => {
    expect(planStart({ ...generated, DATABASE_URL: '', KEYCLOAK_URL: '', POSTGRES_PORT: '' })).toMatchObject({
      postgres: true,
      keycloak: true,
      postgresPort: 5433,
    });
  });

  it('lists all errors of the configuration before anything is started', () => {
    const invalid = { ...generated, PORT: 'http', HOST: '0.0.0.0', KEYCLOAK_PORT: '70000' };
    expect(() => planStart(invalid)).toThrow(/PORT.*KEYCLOAK_PORT.*HOST is not loopback/s);
  });

  it('requires the secrets of a configured Keycloak', () => {
    expect(() => planStart({ ...generated, KEYCLOAK_URL: 'http://localhost:9999' })).toThrow(
      /WEB_CLIENT_SECRET.*SERVICE_CLIENT_SECRET.*VAULT_CLIENT_SECRET/s,
    );
  });

  it('refuses other realms if it starts Keycloak', () => {
    expect(() => planStart({ ...generated, KEYCLOAK_REALM: 'mine' })).toThrow(
      /KEYCLOAK_REALM must be ops-center/,
    );
  });
});

describe('local-mode commands', () => {
  it('are refused if DEPLOY_ENV is set', () => {
    expect(() => {
      assertLocalMode({ DEPLOY_ENV: 'production' }, 'npm start');
    }).toThrow(/`npm start` is for local mode, and DEPLOY_ENV is set/);
    assertLocalMode({ DEPLOY_ENV: '' }, 'npm start');
  });
});

describe('the settings of started servers', () => {
  it('make the demo upstream the system default only if none is configured', () => {
    const url = 'http://127.0.0.1:1/v1';
    const base = { ...generated, ...ownKeycloak, DATABASE_URL: 'postgres://a@127.0.0.1/b' };
    const asDefault = loadConfig({ ...base, ...toDemoSettings(url, 'demo-0123456789', true) });
    expect(asDefault.systemDefault).toMatchObject({
      provider: 'demo',
      baseUrl: url,
      apiKey: 'demo-0123456789',
    });
    const notDefault = loadConfig({
      ...base,
      DEFAULT_LLM_API_KEY: 'mine',
      ...toDemoSettings(url, 'demo-0123456789', false),
    });
    expect(notDefault.systemDefault).toMatchObject({ provider: 'openrouter', apiKey: 'mine' });
    expect(notDefault.upstreams).toEqual({ demo: url });
  });

  const secrets = { get: () => 'secret', has: () => false, fileOf: () => '' };

  it('contain Keycloak’s address for browsers and, with an IP address, for the app', () => {
    const keycloak = {
      url: 'http://localhost:8080',
      internalUrl: 'http://127.0.0.1:8080',
    } as RunningKeycloak;
    const settings = toStackSettings({ keycloak }, secrets);
    const config = loadConfig({ ...generated, ...settings, DATABASE_URL: 'postgres://a@127.0.0.1/b' });
    expect(config.keycloak).toMatchObject({
      url: 'http://localhost:8080',
      internalUrl: 'http://127.0.0.1:8080',
    });
  });

  it('are empty if nothing was started', () => {
    expect(dropEmptySettings(toStackSettings({}, secrets))).toEqual({});
  });
});

describe('settings that override an environment', () => {
  it('replace their NAME_FILE too', () => {
    const environment = {
      DATABASE_URL_FILE: '/run/secrets/database',
      SESSION_SECRET_FILE: '/run/secrets/session',
      PORT: '1',
    };
    expect(overrideSettings(environment, { DATABASE_URL: 'postgres://x', PORT: '2' })).toEqual({
      SESSION_SECRET_FILE: '/run/secrets/session',
      DATABASE_URL: 'postgres://x',
      PORT: '2',
    });
  });
});
