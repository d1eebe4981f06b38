import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { keycloakDataFolder } from '../../../src/dev/quickstart/keycloak/keycloak.ts';
import { keycloakHome } from '../../../src/dev/quickstart/keycloak/archive.ts';
import { listTcpListeners } from '../../../src/dev/quickstart/listeners.ts';
import { freePort } from '../../support/free-port.ts';
import { compileCache } from '../../support/compile-cache.ts';
import { copyTestKeycloak } from '../../support/own-keycloak.ts';

const MAIN = path.resolve(import.meta.dirname, '..', '..', '..', 'src', 'cli', 'main.ts');
/** Makes `localhost` resolve to `::1` first, as on many machines. */
const LOCALHOST_IS_IPV6 = `
  import dns from 'node:dns';
  const { lookup } = dns;
  const both = [{ address: '::1', family: 6 }, { address: '127.0.0.1', family: 4 }];
  dns.lookup = (name, ...rest) => {
    if (name !== 'localhost') return lookup(name, ...rest);
    const [options] = rest;
    process.nextTick(rest.at(-1), null, ...(options?.all ? [both] : ['::1', 6]));
  };
`;
let cwd: string;
let dataDir: string;
let settings: Record<string, string>;
let ports: number[];
let start: ChildProcess;
let otherListeners: Server[] = [];
let caught = 0;

interface Stack {
  app_url: string;
  pids: { keycloak: number };
}
const readStack = () => JSON.parse(readFileSync(path.join(dataDir, 'stack.json'), 'utf8')) as Stack;

function run(...args: string[]): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], {
    cwd,
    env: {
      ...compileCache(),
      PATH: process.env['PATH'] ?? '',
      NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(LOCALHOST_IS_IPV6)}`,
      ...settings,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Collects the output of a command until it matches `until` or the command exits. */
async function output(child: ChildProcess, until = /$^/): Promise<[code: number | undefined, text: string]> {
  let text = '';
  const seen = new Promise<void>((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (part: string) => {
        text += part;
        if (until.test(text)) resolve();
      });
    }
  });
  const ended = once(child, 'close') as Promise<[number]>;
  await Promise.race([seen, ended]);
  return [child.exitCode ?? undefined, text];
}

/** Simulates another program that listens on the other address of `localhost`. */
async function startOtherListener(port: number): Promise<Server> {
  const server = createServer((socket) => {
    caught += 1;
    socket.destroy();
  });
  server.listen(port, '::1');
  await once(server, 'listening');
  return server;
}

beforeAll(async () => {
  cwd = mkdtempSync(path.join(tmpdir(), 'ops-own-'));
  chmodSync(cwd, 0o755);
  dataDir = path.join(cwd, '.data');
  copyTestKeycloak(dataDir);
  ports = [await freePort(), await freePort()];
  const [port, keycloakPort] = ports.map(String) as [string, string];
  settings = { PORT: port, KEYCLOAK_PORT: keycloakPort, METRICS_PORT: '0', POSTGRES_PORT: '0' };
  start = run('dev');
  // At this point the ports have been checked, and the admin's password has not been sent yet.
  await output(start, /Keycloak: starting/);
  otherListeners = await Promise.all(ports.map(startOtherListener));
  const [code, text] = await output(start, /Ctrl-C stops everything/);
  if (code !== undefined) throw new Error(text);
}, 180_000);
afterAll(async () => {
  for (const otherListener of otherListeners) otherListener.close();
  if (start.exitCode === null) {
    const ended = once(start, 'close');
    start.kill('SIGINT');
    await ended;
  }
  rmSync(cwd, { recursive: true });
}, 60_000);

describe('a start that starts Keycloak too', () => {
  it('restricts the folders with Keycloak’s secrets, also after an earlier start left them open', () => {
    for (const folder of [keycloakDataFolder(dataDir), keycloakHome(dataDir), path.join(dataDir, 'secrets')])
      expect(statSync(folder).mode & 0o777).toBe(0o700);
  });

  it('sends no password and no session to a program on the other address of localhost', async () => {
    const [code, session] = await output(run('session', 'professional'));
    expect([code, session.trim().length > 20]).toEqual([0, true]);
    expect(await output(run('demo'))).toMatchObject([0, expect.stringContaining('data: [DONE]')]);
    expect(await output(run('doctor'))).toMatchObject([0, expect.stringMatching(/^0 error\(s\)/m)]);
    expect(caught).toBe(0);
  }, 60_000);

  const onLinux = process.platform === 'linux' ? it : it.skip;
  onLinux('refuses users’ endpoints at every address on which Keycloak listens', async () => {
    const session = (await output(run('session', 'starter')))[1].trim();
    const add = async (port: number) => {
      const answer = await fetch(`http://127.0.0.1:${String(ports[0])}/api/v1/byok/keys/add`, {
        method: 'POST',
        headers: { cookie: `session=${session}`, 'content-type': 'application/json' },
        body: JSON.stringify({ provider: 'custom', key: 'any-key', endpoint: `http://127.0.0.1:${port}/v1` }),
      });
      return [answer.status, ((await answer.json()) as { code?: string }).code];
    };
    const listeners = listTcpListeners(readStack().pids.keycloak);
    // Its pages, its management interface, and one of its transaction manager.
    expect(listeners.length).toBeGreaterThanOrEqual(3);
    for (const { host, port } of listeners) {
      expect(host).toBe('127.0.0.1');
      expect(await add(port)).toEqual([400, 'endpoint_forbidden']);
    }
    expect((await add(await freePort()))[0]).toBe(201);
  });
});
