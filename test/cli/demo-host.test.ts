import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Agent } from 'undici';
import { offerDemoHost } from '../../src/cli/demo-host.ts';
import type { DemoSession } from '../../src/cli/session.ts';
import { findSshd } from '../../src/dev/quickstart/demo-ssh-host.ts';
import { acquireLock } from '../../src/dev/quickstart/lock.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { compileCache } from '../support/compile-cache.ts';
import { describeOn } from '../support/hosts.ts';
import { makeOperator } from '../support/operator.ts';
import { createUser } from '../support/stack.ts';

const MAIN = path.resolve(import.meta.dirname, '..', '..', 'src', 'cli', 'main.ts');
let cwd: string;
beforeAll(() => {
  cwd = mkdtempSync(path.join(tmpdir(), 'ops-demo-host-'));
  mkdirSync(path.join(cwd, '.data'));
});
afterAll(() => {
  rmSync(cwd, { recursive: true });
});

function runCommand(more: Record<string, string> = {}): string {
  const env = { PATH: process.env['PATH'] ?? '', ...compileCache(), ...more };
  return spawnSync(process.execPath, [MAIN, 'demo-host'], { cwd, env, encoding: 'utf8' }).stderr;
}

function writeStack(change: Record<string, string>): void {
  const stack = {
    ...{ app_url: 'http://localhost:1', app_host: '127.0.0.1', keycloak_url: 'http://localhost:1' },
    ...{ database_url: '', admin_user: null, admin_password_file: null },
    pids: { app: process.pid, keycloak: null, postgres: null },
    ...change,
  };
  writeFileSync(path.join(cwd, '.data', 'stack.json'), JSON.stringify(stack));
}

describe('demo-host', () => {
  it('is refused without a running quick start, and in a deployment', () => {
    expect(runCommand()).toMatch(/No stack is running/);
    expect(runCommand({ DEPLOY_ENV: 'production' })).toMatch(/for local mode/);
  });

  // The password of its user is public.
  it.each([
    { app_host: '0.0.0.0' },
    { app_host: '::' },
    { app_host: '192.0.2.1' },
    { app_url: 'http://ops.example.com:1' },
  ])('is refused while other machines can reach the app: %j', (change) => {
    writeStack(change);
    expect(runCommand()).toMatch(/other machines could run programs/);
  });
});

it('a second demo-host is refused with the process id of the first one, which keeps its server', async () => {
  writeStack({});
  const release = await acquireLock({
    file: path.join(cwd, '.data', 'demo-host.lock'),
    waitMs: 0,
    busyMessage: String,
  });
  expect(runCommand()).toMatch(`Process ${process.pid} already offers the demo host`);
  release();
  expect(runCommand()).not.toMatch(/already offers/);
});

interface Server {
  id: string;
  name: string;
  server_type: string;
  test_status: string;
}

async function signIn(app: TestApp): Promise<DemoSession> {
  const user = await createUser({ tier: 'enterprise' });
  await makeOperator(user.id);
  const session = await app.signIn(user);
  return { appUrl: app.url, cookieName: 'session', session, dispatcher: new Agent() };
}

async function listServers({ appUrl, session }: DemoSession): Promise<Server[]> {
  const response = await fetch(`${appUrl}/api/v1/execution-servers`, {
    headers: { cookie: `session=${session}` },
  });
  return (await response.json()) as Server[];
}

const hostOptions = (sshd: string | undefined, printed: string[] = []) => ({
  ...{ dataDir: path.join(cwd, '.data'), searchPath: process.env['PATH'] ?? '', sshd },
  print: (text: string) => void printed.push(text),
});

describe('the offered host, where the app does not run programs itself', () => {
  let app: TestApp;
  let session: DemoSession;
  beforeAll(async () => {
    app = await startApp();
    session = await signIn(app);
  });
  afterAll(() => app.stop());

  (findSshd() === undefined ? it.skip : it)(
    'is an SSH host, tested, which replaces an earlier one',
    async () => {
      for (let round = 0; round < 2; round += 1) {
        const host = await offerDemoHost(session, hostOptions(findSshd()));
        expect(await listServers(session)).toMatchObject([
          { name: 'Demo host', server_type: 'ssh', test_status: 'online' },
        ]);
        expect(host.rights).toMatch(/as the user ".+", with all its rights/);
        await host.stop();
      }
    },
  );

  it('is missing without sshd: the message names what to install, and no server is left', async () => {
    await expect(offerDemoHost(session, hostOptions(undefined))).rejects.toThrow(
      /openssh-server.*bubblewrap/,
    );
    expect(await listServers(session)).toEqual([]);
  });
});

describeOn('local', 'the offered host, where the app has the sandbox', () => {
  it('is the sandbox', async () => {
    await using app = await startApp({ env: { LOCAL_EXECUTION: 'true' } });
    const session = await signIn(app);
    const host = await offerDemoHost(session, hostOptions(findSshd()));
    expect(host.rights).toMatch(/in a sandbox/);
    expect(await listServers(session)).toMatchObject([
      { name: 'Demo host', server_type: 'local', test_status: 'online' },
    ]);
    await host.stop();
  });
});
