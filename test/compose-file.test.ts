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
  build?: { context: string; args: string[] };
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
  mem_limit?: string;
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

/** Applies the merge key like Compose does; YAML 1.2 no longer has it. */
function merged({ '<<': bases = [], ...service }: Service): Service {
  return Object.assign({}, ...[bases].flat(), service) as Service;
}

/** Replaces `${NAME}`, `${NAME:-default}` and `${NAME:?message}` like Compose does. */
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

/** The build arguments of a Dockerfile with their defaults. */
function readBuildArguments(file: string): Record<string, string> {
  const lines = readFileSync(file, 'utf8').matchAll(/^ARG (\w+)=(\S+)$/gm);
  return Object.fromEntries([...lines].map(([, name = '', value = '']) => [name, value]));
}

const noFiles = () => {
  throw new Error('no setting is read from a file');
};

describe('docker-compose.yml', () => {
  it.each(Object.entries(services))('gives %s no unnecessary privileges', (_name, service) => {
    expect(service.read_only).toBe(true);
    expect(service.cap_drop).toEqual(['ALL']);
    expect(service.security_opt).toEqual(['no-new-privileges:true']);
    expect(Object.keys(service)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(privileged|cap_add|devices|pid|ipc|userns_mode)$/)]),
    );
    expect(service.network_mode ?? 'service:app').toBe('service:app');
    // Named volumes only: no files of the machine.
    for (const volume of service.volumes ?? []) expect(volume).toMatch(/^[a-z]+:\//);
  });

  it.each(Object.entries(services))('limits the memory of %s', (_name, service) => {
    expect(service.mem_limit).toMatch(/^\d+[mg]$/);
  });

  it('gives the password of the schema owner only to the services that prepare the database', () => {
    const names = Object.entries(services)
      .filter(([, { environment }]) => JSON.stringify(environment ?? {}).includes('POSTGRES_OWNER_PASSWORD'))
      .map(([name]) => name);
    expect(names).toEqual(['prepare-database', 'migrate']);
  });

  it('runs an init process in the app container, which reaps orphans', () => {
    expect(services['app']?.init).toBe(true);
  });

  it('publishes ports on loopback only, and only of Keycloak and the app', () => {
    const published = Object.entries(services).filter(([, { ports }]) => ports !== undefined);
    expect(published.map(([name]) => name)).toEqual(['keycloak', 'app']);
    for (const [, { ports = [] }] of published)
      for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
  });

  it('keeps Postgres on an internal network, with the app and the services that prepare the database', () => {
    expect(compose.networks['database']).toEqual({ internal: true });
    expect(services['postgres']?.networks).toEqual(['database']);
    const connected = Object.entries(services).filter(([, { networks }]) => networks?.includes('database'));
    expect(connected.map(([name]) => name).sort()).toEqual([
      'app',
      'migrate',
      'postgres',
      'prepare-database',
    ]);
  });

  it('starts each service after the services that it needs are healthy or completed', () => {
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
      migrate: ['prepare-database service_completed_successfully'],
      'demo-users': ['keycloak service_healthy', 'prepare-database service_completed_successfully'],
      app: ['migrate service_completed_successfully', 'keycloak service_healthy'],
      'demo-provider': ['app service_healthy'],
    });
  });

  it('has a health check for each service that another one waits for', () => {
    // The health check of the app is in its image.
    expect(readFileSync('Dockerfile', 'utf8')).toContain('\nHEALTHCHECK ');
    for (const name of ['postgres', 'keycloak'])
      expect(services[name]?.healthcheck?.test?.length).toBeGreaterThan(1);
  });

  it('reads every secret from .env, as written by the command env', () => {
    const required = [...TEXT.matchAll(/\$\{(\w+):\?/g)].map(([, name]) => name);
    const plain = [...TEXT.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => name);
    expect(new Set([...required, ...plain])).toEqual(new Set(Object.keys(secrets)));
    // Every used variable is also required somewhere, so a missing .env is an error and not an empty value.
    expect(plain.filter((name) => !required.includes(name))).toEqual([]);
  });

  it('gives Keycloak all variables of the realm files', () => {
    for (const file of ['ops-center-realm.json', 'ops-center-vault-realm.json'])
      for (const name of listPlaceholders(readFileSync(`keycloak/${file}`, 'utf8')))
        expect(filledIn(services['keycloak']?.environment)[name]).toBeTruthy();
  });

  it('builds the same version of Keycloak as the quick start', () => {
    const { KEYCLOAK_VERSION } = readBuildArguments('keycloak/Dockerfile');
    expect(`keycloak-${KEYCLOAK_VERSION}`).toBe(readArchivePin().home);
  });

  it.each(['Dockerfile', 'keycloak/Dockerfile'])(
    'builds %s on full versions, which can be changed',
    (file) => {
      const versions = readBuildArguments(file);
      const folder = file.includes('/') ? './keycloak' : '.';
      const builds = Object.values(services).flatMap(({ build }) =>
        build?.context === folder ? [build] : [],
      );
      expect(builds).not.toEqual([]);
      for (const { args } of builds) expect(args).toEqual(Object.keys(versions));
      const images = [...readFileSync(file, 'utf8').matchAll(/^FROM (\S+)/gm)].map(([, image = '']) => image);
      expect(images).not.toEqual([]);
      for (const image of images) {
        const filled = image.replace(/\$\{(\w+)\}/, (_all, name: string) => versions[name] ?? '');
        expect([image, filled]).toEqual([
          expect.stringMatching(/:\$\{\w+\}/),
          expect.stringMatching(/:\d+\.\d+\.\d+(-|$)/),
        ]);
      }
    },
  );

  it('starts Postgres in a full version, which can be changed', () => {
    expect(services['postgres']?.image).toMatch(/^postgres:\$\{POSTGRES_VERSION:-\d+\.\d+\}$/);
  });

  it('has a valid configuration of the app in local mode', () => {
    const environment = { HOST: '0.0.0.0', ...filledIn(services['app']?.environment) };
    const config = readConfig(environment, noFiles, { isListening: true });
    expect(config.mode).toBe('local');
    expect(services['app']?.ports).toEqual([`127.0.0.1:\${PORT:-3000}:${config.port}`]);
    expect(config.keycloak.url).toBe(filledIn(services['keycloak']?.environment)['KC_HOSTNAME']);
  });
});

describe("the README's override for a deployment", () => {
  const readme = readFileSync('README.md', 'utf8');
  const block = /```yaml\n(# docker-compose\.override\.yml[\s\S]*?)```/.exec(readme)?.[1] ?? '';
  const override = loadYaml<ComposeFile>(block.replaceAll(' !override', ''));
  const demo = ['keycloak', 'demo-users', 'demo-provider'];

  it('has a valid configuration of the app in deployed mode', () => {
    const environment = { ...services['app']?.environment, ...override.services['app']?.environment };
    const config = readConfig({ HOST: '0.0.0.0', ...filledIn(environment) }, noFiles, { isListening: true });
    expect(config.mode).toBe('deployed');
    expect(config.systemDefault.apiKey).toBeUndefined();
  });

  it('starts no Keycloak, no demo user and no demo provider', () => {
    for (const name of demo) expect(override.services[name]?.profiles).toEqual(['trial']);
  });

  it('lets the app wait only for services that are started', () => {
    expect(Object.keys(override.services['app']?.depends_on ?? {})).toEqual(['migrate']);
  });
});
