import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { loadYaml } from '@kubernetes/client-node';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { COMPOSE_SECRETS, writeComposeSecrets } from '../src/cli/compose-secrets.ts';
import { readArchivePin } from '../src/dev/quickstart/keycloak/archive.ts';
import { listPlaceholders } from '../src/dev/quickstart/keycloak/keycloak.ts';
import { readConfig, type Environment } from '../src/config/config.ts';

interface Service {
  '<<'?: Service | Service[];
  image?: string;
  command?: string | string[];
  entrypoint?: string[];
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
/** Stands for the volumes of the secrets, with one folder for each. */
let root: string;
beforeAll(() => {
  root = mkdtempSync(path.join(tmpdir(), 'compose-secrets-'));
  writeComposeSecrets({}, root, () => undefined);
});
afterAll(() => {
  rmSync(root, { recursive: true });
});

/** Reads a file of `/run/secrets` as the service sees it, through the volume that it mounts there. */
function createSecretReader(service: Service): (file: string) => string {
  const volume = service.volumes?.find((one) => one.endsWith(':/run/secrets:ro'));
  return (file) => {
    expect([volume, path.dirname(file)]).toEqual([expect.stringMatching(/^secrets-/), '/run/secrets']);
    return readFileSync(
      path.join(root, volume?.split(':')[0]?.slice('secrets-'.length) ?? '', path.basename(file)),
      'utf8',
    );
  };
}

/** Applies the merge key like Compose does; YAML 1.2 no longer has it. */
function merged({ '<<': bases = [], ...service }: Service): Service {
  return Object.assign({}, ...[bases].flat(), service) as Service;
}

/** Replaces `${NAME:-default}` like Compose does without `.env`. */
function filledIn(environment: Environment = {}): Environment {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value = '']) => [
      name,
      value.replace(/\$\{\w+:-([^}]*)\}/g, (_all, fallback: string) => fallback),
    ]),
  );
}

/** The build arguments of a Dockerfile with their defaults. */
function readBuildArguments(file: string): Record<string, string> {
  const lines = readFileSync(file, 'utf8').matchAll(/^ARG (\w+)=(\S+)$/gm);
  return Object.fromEntries([...lines].map(([, name = '', value = '']) => [name, value]));
}

describe('docker-compose.yml', () => {
  it.each(Object.entries(services))('gives %s no unnecessary privileges', (_name, service) => {
    expect(service.read_only).toBe(true);
    expect(service.cap_drop).toEqual(['ALL']);
    expect(service.security_opt).toEqual(['no-new-privileges:true']);
    expect(Object.keys(service)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(privileged|cap_add|devices|pid|ipc|userns_mode)$/)]),
    );
    expect(['none', 'service:app']).toContain(service.network_mode ?? 'none');
    // Named volumes only: no files of the machine.
    for (const volume of service.volumes ?? []) expect(volume).toMatch(/^[a-z-]+:\//);
  });

  it.each(Object.entries(services))('limits the memory of %s', (_name, service) => {
    expect(service.mem_limit).toMatch(/^\d+[mg]$/);
  });

  it('gives each service the secrets that it needs and no others', () => {
    const files = Object.entries(services).flatMap(([name, { volumes = [] }]) =>
      volumes
        .filter((volume) => volume.endsWith(':/run/secrets:ro'))
        .map((volume) => [name, readdirSync(path.join(root, volume.split(':')[0]?.slice(8) ?? '')).sort()]),
    );
    const clients = [
      'KEYCLOAK_SERVICE_CLIENT_SECRET',
      'KEYCLOAK_VAULT_CLIENT_SECRET',
      'KEYCLOAK_WEB_CLIENT_SECRET',
    ];
    const database = ['DATABASE_URL', 'MIGRATION_DATABASE_URL', 'SUPERUSER_DATABASE_URL'];
    const keycloak = ['KC_BOOTSTRAP_ADMIN_PASSWORD', ...clients];
    expect(Object.fromEntries(files)).toEqual({
      postgres: ['POSTGRES_PASSWORD'],
      keycloak,
      'prepare-database': database,
      migrate: database,
      'demo-users': keycloak,
      app: ['DATABASE_URL', 'DEFAULT_LLM_API_KEY', 'ENCRYPTION_KEY', ...clients, 'SESSION_SECRET'],
    });
  });

  it('reads in each service only files that the service has', () => {
    for (const service of Object.values(services)) {
      const read = createSecretReader(service);
      for (const [name, file = ''] of Object.entries(service.environment ?? {}))
        if (name.endsWith('_FILE')) expect(read(file)).not.toBe('');
    }
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
      secrets: [],
      postgres: ['secrets service_completed_successfully'],
      keycloak: ['secrets service_completed_successfully'],
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

  it('passes every secret of .env to the service that writes them, and to no other', () => {
    expect(services['secrets']?.environment).toEqual(
      Object.fromEntries(Object.keys(COMPOSE_SECRETS).map((name) => [name, `\${${name}:-}`])),
    );
    expect(services['secrets']?.network_mode).toBe('none');
    for (const name of Object.keys(COMPOSE_SECRETS)) expect(TEXT.split(`\${${name}`)).toHaveLength(2);
    expect(TEXT).not.toContain(':?');
  });

  it('starts Keycloak with its secrets in the environment', () => {
    const [, , script = ''] = services['keycloak']?.entrypoint ?? [];
    const folder = path.join(root, 'keycloak');
    // What Compose replaces, and the paths of the container.
    const local = script
      .replaceAll('$$', '$')
      .replace('/run/secrets', folder)
      .replace('/opt/keycloak/bin/kc.sh', 'printenv -0 ; echo');
    const { stdout } = spawnSync('bash', ['-c', local.replace('exec ', '')], {
      encoding: 'utf8',
      env: { PATH: process.env['PATH'] },
    });
    const seen = new Set(stdout.split('\0'));
    for (const name of readdirSync(folder))
      expect(seen).toContain(`${name}=${readFileSync(path.join(folder, name), 'utf8')}`);
    expect(stdout).toContain('start --optimized --import-realm');
  });

  it('gives Keycloak all variables of the realm files', () => {
    for (const file of ['ops-center-realm.json', 'ops-center-vault-realm.json'])
      for (const name of listPlaceholders(readFileSync(`keycloak/${file}`, 'utf8')))
        expect([
          ...Object.keys(services['keycloak']?.environment ?? {}),
          ...readdirSync(path.join(root, 'keycloak')),
        ]).toContain(name);
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
    const config = readConfig(environment, createSecretReader(services['app'] ?? {}), { isListening: true });
    expect(config.mode).toBe('local');
    expect(services['app']?.ports).toEqual([`127.0.0.1:\${PORT:-3000}:${config.port}`]);
    expect(config.keycloak.url).toBe(filledIn(services['keycloak']?.environment)['KC_HOSTNAME']);
  });
});

describe('the command compose-secrets', () => {
  const folders = ['app', 'database', 'keycloak', 'own', 'postgres'];
  const read = (folder: string, name: string) => readFileSync(path.join(root, folder, name), 'utf8');
  const readAll = () =>
    folders.flatMap((folder) =>
      readdirSync(path.join(root, folder)).map((name) => [folder, name, read(folder, name)]),
    );

  it('keeps the secrets of an earlier start', () => {
    const before = readAll();
    const lines: string[] = [];
    writeComposeSecrets({}, root, (line) => lines.push(line));
    expect(readAll()).toEqual(before);
    expect(lines).toEqual(['The secrets of this installation are in place.']);
  });

  it('protects its own files, which hold all secrets, and lets the users of the services read theirs', () => {
    expect(statSync(path.join(root, 'own')).mode & 0o777).toBe(0o700);
    for (const [folder = '', name = ''] of readAll())
      expect(statSync(path.join(root, folder, name)).mode & 0o777).toBe(folder === 'own' ? 0o600 : 0o444);
  });

  it('uses a secret of .env, also in addresses and after it was generated, and keeps it when .env is lost', () => {
    const given = { POSTGRES_APP_PASSWORD: 'mine/with@signs', SESSION_SECRET: 's'.repeat(43) };
    writeComposeSecrets(given, root, () => undefined);
    writeComposeSecrets({ SESSION_SECRET: '' }, root, () => undefined);
    const address = 'postgres://ops_center:mine%2Fwith%40signs@postgres/ops_center';
    expect([read('app', 'DATABASE_URL'), read('database', 'DATABASE_URL')]).toEqual([address, address]);
    expect(read('app', 'SESSION_SECRET')).toBe('s'.repeat(43));
  });

  it('prints the names of generated secrets, and no value', () => {
    rmSync(path.join(root, 'own', 'SESSION_SECRET'));
    const lines: string[] = [];
    writeComposeSecrets({}, root, (line) => lines.push(line));
    expect(lines.join()).toContain('Generated SESSION_SECRET.');
    for (const [, , value = ''] of readAll()) expect(lines.join()).not.toContain(value);
  });

  it('writes into folders that exist, as volumes do', () => {
    const volumes = mkdtempSync(path.join(tmpdir(), 'compose-volumes-'));
    for (const folder of folders) mkdirSync(path.join(volumes, folder));
    chmodSync(path.join(volumes, 'own'), 0o700);
    writeFileSync(path.join(volumes, 'app', 'SESSION_SECRET'), 'of an earlier start', { mode: 0o444 });
    writeComposeSecrets({}, volumes, () => undefined);
    expect(readFileSync(path.join(volumes, 'app', 'SESSION_SECRET'), 'utf8')).toHaveLength(43);
    rmSync(volumes, { recursive: true });
  });
});

describe("the README's override for a deployment", () => {
  const readme = readFileSync('README.md', 'utf8');
  const block = /```yaml\n(# docker-compose\.override\.yml[\s\S]*?)```/.exec(readme)?.[1] ?? '';
  const override = loadYaml<ComposeFile>(block.replaceAll(' !override', ''));
  const demo = ['keycloak', 'demo-users', 'demo-provider'];

  it('has a valid configuration of the app in deployed mode', () => {
    const environment = { ...services['app']?.environment, ...override.services['app']?.environment };
    const read = createSecretReader(services['app'] ?? {});
    const config = readConfig({ HOST: '0.0.0.0', ...filledIn(environment) }, read, { isListening: true });
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
