import { describe, expect, it } from '@jest/globals';
import { loadYaml } from '@kubernetes/client-node';
import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import { createComposeEnv } from '../src/cli/compose.ts';
import { readArchivePin } from '../src/dev/quickstart/keycloak/archive.ts';
import { listPlaceholders } from '../src/dev/quickstart/keycloak/keycloak.ts';
import { readConfig, type Environment } from '../src/config/config.ts';

interface Service {
  '<<'?: Service | Service[];
  image?: string;
  build?: string;
  user?: string;
  environment?: Environment;
  ports?: string[];
  networks?: string[];
  network_mode?: string;
  volumes?: string[];
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test?: string[]; disable?: boolean };
  read_only?: boolean;
  cap_drop?: string[];
  security_opt?: string[];
  profiles?: string[];
  init?: boolean;
}
interface ComposeFile {
  services: Record<string, Service>;
  networks: Record<string, { internal?: boolean }>;
}

const TEXT = readFileSync('docker-compose.yml', 'utf8');
const compose = loadYaml<ComposeFile>(TEXT);
const services = Object.fromEntries(
  Object.entries(compose.services).map(([name, one]) => [name, merged(one)]),
);
const secrets = parseEnv(createComposeEnv());

/** As Compose reads the merge key, which YAML 1.2 no longer has. */
function merged({ '<<': others = [], ...own }: Service): Service {
  return Object.assign({}, ...[others].flat(), own) as Service;
}

/** As Compose replaces `${NAME}`, `${NAME:-default}` and `${NAME:?message}`. */
function filledIn(environment: Environment = {}): Environment {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value = '']) => [
      name,
      value.replace(
        /\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}/g,
        (_all, key: string, fallback?: string) => secrets[key] ?? fallback ?? '',
      ),
    ]),
  );
}

const noFiles = () => {
  throw new Error('no setting comes from a file');
};

describe('docker-compose.yml', () => {
  it.each(Object.entries(services))('gives %s nothing that it does not need', (_name, service) => {
    expect(service.read_only).toBe(true);
    expect(service.cap_drop).toEqual(['ALL']);
    expect(service.security_opt).toEqual(['no-new-privileges:true']);
    expect(Object.keys(service)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(privileged|cap_add|devices|pid|ipc|userns_mode)$/)]),
    );
    expect(service.network_mode ?? 'service:app').toBe('service:app');
    // Named volumes only: nothing of the machine's own files.
    for (const volume of service.volumes ?? []) expect(volume).toMatch(/^[a-z]+:\//);
  });

  it('does not make the app the first process of its container, which has to collect orphans', () => {
    expect(services['app']?.init).toBe(true);
  });

  it('publishes ports on loopback only, and of Keycloak and the app alone', () => {
    const published = Object.entries(services).filter(([, { ports }]) => ports !== undefined);
    expect(published.map(([name]) => name)).toEqual(['keycloak', 'app']);
    for (const [, { ports = [] }] of published)
      for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
  });

  it('keeps Postgres on a network that leads nowhere, with the app and what prepares it', () => {
    expect(compose.networks['database']).toEqual({ internal: true });
    expect(services['postgres']?.networks).toEqual(['database']);
    const reaching = Object.entries(services).filter(([, { networks }]) => networks?.includes('database'));
    expect(reaching.map(([name]) => name).sort()).toEqual(['app', 'postgres', 'prepare-database']);
  });

  it('starts each service when what it needs is healthy or done', () => {
    const order = Object.fromEntries(
      Object.entries(services).map(([name, { depends_on = {} }]) => [
        name,
        Object.entries(depends_on).map(([needed, { condition }]) => `${needed} ${condition}`),
      ]),
    );
    expect(order).toEqual({
      postgres: [],
      keycloak: [],
      'prepare-database': ['postgres service_healthy'],
      'demo-users': ['keycloak service_healthy', 'prepare-database service_completed_successfully'],
      app: ['prepare-database service_completed_successfully', 'keycloak service_healthy'],
      'demo-provider': ['app service_healthy'],
    });
  });

  it('says how each service shows its health that another one waits for', () => {
    // The app's own check comes with its image.
    expect(readFileSync('Dockerfile', 'utf8')).toContain('\nHEALTHCHECK ');
    for (const name of ['postgres', 'keycloak'])
      expect(services[name]?.healthcheck?.test?.length).toBeGreaterThan(1);
  });

  it('takes every secret from .env, where the command env has written it', () => {
    const required = [...TEXT.matchAll(/\$\{(\w+):\?/g)].map(([, name]) => name);
    const plain = [...TEXT.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => name);
    expect(new Set([...required, ...plain])).toEqual(new Set(Object.keys(secrets)));
    // Whatever is used is also required somewhere: a missing .env is told, not filled with nothing.
    expect(plain.filter((name) => !required.includes(name))).toEqual([]);
  });

  it('gives Keycloak all that the realm files leave open', () => {
    for (const file of ['ops-center-realm.json', 'ops-center-vault-realm.json'])
      for (const name of listPlaceholders(readFileSync(`keycloak/${file}`, 'utf8')))
        expect(filledIn(services['keycloak']?.environment)[name]).toBeTruthy();
  });

  it('builds the Keycloak that the quick start runs too', () => {
    const from = /^FROM quay\.io\/keycloak\/keycloak:(\S+)$/m.exec(
      readFileSync('keycloak/Dockerfile', 'utf8'),
    );
    expect(`keycloak-${String(from?.[1])}`).toBe(readArchivePin().home);
  });

  it('configures the app for local mode without a fault', () => {
    const environment = { HOST: '0.0.0.0', ...filledIn(services['app']?.environment) };
    const config = readConfig(environment, noFiles, { isListening: true });
    expect(config.mode).toBe('local');
    expect(services['app']?.ports).toEqual([`127.0.0.1:\${PORT:-3000}:${config.port}`]);
    expect(config.keycloak.url).toBe(filledIn(services['keycloak']?.environment)['KC_HOSTNAME']);
  });
});

describe("README's override for a deployment", () => {
  const readme = readFileSync('README.md', 'utf8');
  const block = /```yaml\n(# docker-compose\.override\.yml[\s\S]*?)```/.exec(readme)?.[1] ?? '';
  const override = loadYaml<ComposeFile>(block.replaceAll(' !override', ''));
  const demo = ['keycloak', 'demo-users', 'demo-provider'];

  it('makes of the app a deployment without a fault', () => {
    const environment = { ...services['app']?.environment, ...override.services['app']?.environment };
    const config = readConfig({ HOST: '0.0.0.0', ...filledIn(environment) }, noFiles, { isListening: true });
    expect(config.mode).toBe('deployed');
    expect(config.systemDefault.apiKey).toBeUndefined();
  });

  it('starts no Keycloak, no demo user and no demo provider', () => {
    for (const name of demo) expect(override.services[name]?.profiles).toEqual(['trial']);
  });

  it('lets the app wait for nothing that is not started', () => {
    expect(Object.keys(override.services['app']?.depends_on ?? {})).toEqual(['prepare-database']);
  });
});
