import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { fetch } from 'undici';
import { KEYCLOAK_FOLDER } from '../../../src/dev/quickstart/keycloak/archive.ts';
import { findDockerFallback, startOwnKeycloak } from '../../../src/dev/quickstart/keycloak/runtime.ts';
import type { RunningKeycloak } from '../../../src/dev/quickstart/keycloak/keycloak.ts';
import { readCommandLine, isProcessRunning } from '../../../src/dev/quickstart/processes.ts';
import { signInAsBootstrapAdmin } from '../../../src/dev/quickstart/keycloak/realm-setup.ts';
import { createSecrets, type SecretName, type Secrets } from '../../../src/dev/quickstart/secrets.ts';
import { evidence } from '../../support/evidence.ts';
import { describeOn, dockerHost } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import { ensureKeycloakImage } from './keycloak-image.ts';

const SECRETS: SecretName[] = [
  'keycloak-admin',
  'keycloak-web-client',
  'keycloak-service-client',
  'keycloak-vault-client',
];
/** The image is created and started on a machine that may be busy. */
const READY_TIMEOUT_MS = 15 * 60_000;

let dataDir: string;
beforeAll(() => {
  dataDir = mkdtempSync(path.join(tmpdir(), 'ops-container-'));
});
afterAll(() => {
  rmSync(dataDir, { recursive: true });
});

/** Creates a folder for PATH with only `docker`, and a `java` that prints the given version. */
function pathWith(docker: string | undefined, javaVersion?: string): string {
  const folder = mkdtempSync(path.join(dataDir, 'path-'));
  if (docker !== undefined) symlinkSync(docker, path.join(folder, 'docker'));
  if (javaVersion === undefined) return folder;
  const java = path.join(folder, 'java');
  writeFileSync(java, `#!/bin/sh\necho 'openjdk version "${javaVersion}"' >&2\n`);
  chmodSync(java, 0o755);
  return folder;
}

describe('The runtime of Keycloak without a Docker engine', () => {
  it('is Java if `docker` is missing or no engine responds', async () => {
    expect(await findDockerFallback({ dataDir, environment: { PATH: pathWith(undefined) } })).toBeUndefined();
    const unreachable = {
      PATH: process.env['PATH'],
      JAVA_HOME: dataDir,
      DOCKER_HOST: `unix://${dataDir}/none.sock`,
    };
    expect(await findDockerFallback({ dataDir, environment: unreachable })).toBeUndefined();
  });
});

// Creating and building an image of Keycloak takes minutes, so these tests run on request only.
if (process.env['TEST_KEYCLOAK_CONTAINER'] === 'true') {
  describeOn('docker', 'Keycloak in a container', describeContainer);
} else {
  process.stderr.write('Skipping Keycloak in a container. Set TEST_KEYCLOAK_CONTAINER=true to test it.\n');
  describe.skip('Keycloak in a container', () => {
    it('is skipped without TEST_KEYCLOAK_CONTAINER=true', () => undefined);
  });
}

function describeContainer(): void {
  const engine = dockerHost();
  const environment = { DOCKER_HOST: `unix://${engine.socketPath}`, HOME: tmpdir() };
  const run = promisify(execFile);
  const notes: string[] = [];
  let secrets: Secrets;
  let keycloak: RunningKeycloak;

  async function docker(...args: string[]): Promise<string> {
    const { stdout } = await run(engine.command, args, { env: { ...process.env, ...environment } });
    return stdout.trim();
  }
  const containers = async () =>
    (await docker('ps', '--all', '--quiet', `--filter=label=ops-center.data-dir=${dataDir}`))
      .split('\n')
      .filter(Boolean);
  const start = (signal?: AbortSignal) =>
    startOwnKeycloak({
      ...{ dataDir, secrets, port: 0, signal },
      ...{ publicUrl: 'http://localhost:3000', internalUrl: 'http://localhost:3000' },
      environment: { ...environment, PATH: pathWith(engine.command) },
      note: (text) => notes.push(text),
    });
  const admin = () => signInAsBootstrapAdmin(keycloak.internalUrl, secrets.get('keycloak-admin'));

  beforeAll(async () => {
    const dockerfile = readFileSync(path.join(KEYCLOAK_FOLDER, 'Dockerfile'), 'utf8');
    ensureKeycloakImage(/^FROM (\S+)$/m.exec(dockerfile)?.[1] ?? '');
    secrets = createSecrets(dataDir);
    for (const name of SECRETS) evidence.registerSecret('password', secrets.get(name));
    keycloak = await start();
  }, READY_TIMEOUT_MS);

  afterAll(async () => {
    evidence.recordLog(readFileSync(path.join(dataDir, 'keycloak.log'), 'utf8'));
    for (const id of await containers()) await docker('rm', '--force', id);
    await docker(
      'volume',
      'rm',
      '--force',
      readFileSync(path.join(dataDir, 'keycloak-volume'), 'utf8').trim(),
    );
  });

  it('is used if Java is missing or too old, and not otherwise', async () => {
    const choose = (javaVersion?: string) =>
      findDockerFallback({
        dataDir,
        environment: { ...environment, PATH: pathWith(engine.command, javaVersion) },
      });
    expect(await choose()).toMatchObject({ reason: 'Java is not installed' });
    expect(await choose('11.0.2')).toMatchObject({ reason: 'Java 11 is too old' });
    expect(await choose('17.0.15')).toBeUndefined();
  });

  it('is not used with an engine of another machine, which has another loopback', async () => {
    const remote = { ...environment, PATH: pathWith(engine.command), DOCKER_HOST: engine.host };
    expect(await findDockerFallback({ dataDir, environment: remote })).toBeUndefined();
  });

  it('reports that the start uses a container', () => {
    expect(notes[0]).toBe('Java is not installed: starting in a Docker container');
  });

  it('has the realms with the address for browsers, and the admin of the data directory', async () => {
    for (const realm of ['ops-center', 'ops-center-vault']) {
      const answer = await fetch(`${keycloak.internalUrl}/realms/${realm}/.well-known/openid-configuration`);
      expect(await answer.json()).toMatchObject({ issuer: `${keycloak.url}/realms/${realm}` });
    }
    const [web] = await (await admin()).clients.find({ realm: 'ops-center', clientId: 'ops-center-web' });
    expect(web?.secret).toBe(secrets.get('keycloak-web-client'));
  });

  it('is published on loopback only, without capabilities, with a read-only root', async () => {
    const [id = ''] = await containers();
    const [found] = JSON.parse(await docker('inspect', id)) as [{ HostConfig: Record<string, unknown> }];
    expect(found.HostConfig).toMatchObject({
      PortBindings: {
        '8080/tcp': [{ HostIp: '127.0.0.1', HostPort: String(keycloak.port) }],
        '9000/tcp': [{ HostIp: '127.0.0.1', HostPort: String(keycloak.managementPort) }],
      },
      ...{ ReadonlyRootfs: true, CapDrop: ['ALL'], SecurityOpt: ['no-new-privileges'], Privileged: false },
    });
  });

  it('lists the other addresses of the container, so that users’ endpoints cannot reach them', async () => {
    expect(keycloak.listeners.map(({ port }) => port)).toEqual([8080, 9000, 7800, 57_800]);
    const [{ host } = { host: '' }] = keycloak.listeners;
    expect((await fetch(`http://${host}:9000/health/ready`)).status).toBe(200);
  });

  it('has no secret on a command line, neither of the machine nor of the container', async () => {
    const [id = ''] = await containers();
    const shown = [
      readCommandLine(keycloak.pid),
      await docker('inspect', '--format', '{{.Path}} {{.Args}}', id),
    ];
    for (const name of SECRETS) expect(JSON.stringify(shown)).not.toContain(secrets.get(name));
  });

  it('replaces the container that a killed start left, and keeps changes in the realms', async () => {
    await (await admin()).users.create({ realm: 'ops-center', username: 'kept', enabled: true });
    const left = await containers();
    process.kill(keycloak.pid, 'SIGKILL');
    await keycloak.ended;
    expect(await containers()).toEqual(left);
    keycloak = await start();
    const now = await containers();
    expect(now).toHaveLength(1);
    expect(now).not.toEqual(left);
    const kept = await (await admin()).users.find({ realm: 'ops-center', username: 'kept', exact: true });
    expect(kept).toHaveLength(1);
  }, 240_000);

  it('leaves no container after it is stopped, and its `docker` exits', async () => {
    await keycloak.stop();
    await keycloak.ended;
    expect(await containers()).toEqual([]);
    expect(isProcessRunning(keycloak.pid)).toBe(false);
  }, 60_000);

  it('leaves no container if the start is cancelled', async () => {
    const stop = new AbortController();
    const cancelled = start(stop.signal).catch((error: unknown) => error);
    await until(containers, (ids) => ids.length === 1, 60_000);
    stop.abort();
    expect(await cancelled).toMatchObject({ name: 'AbortError' });
    expect(await containers()).toEqual([]);
  }, 120_000);
}
