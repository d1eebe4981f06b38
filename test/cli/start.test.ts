import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { freePort } from '../support/free-port.ts';
import { isProcessRunning } from '../../src/dev/quickstart/processes.ts';
import { fernetKey } from '../support/app.ts';
import { compileCache } from '../support/compile-cache.ts';
import { randomPassword } from '../support/servers.ts';
import { evidence } from '../support/evidence.ts';
import { createUser, createWebClient, stack } from '../support/stack.ts';
import { createVaultRealm, type VaultRealm } from '../support/vault-realm.ts';

const MAIN = path.resolve(import.meta.dirname, '..', '..', 'src', 'cli', 'main.ts');
let cwd: string;
let settings: Record<string, string>;
let vault: VaultRealm;

interface Running {
  child: ChildProcess;
  printed: () => string;
  /** Resolves with the exit code. */
  ended: Promise<number | null>;
}

/** Runs a command in `cwd`. Only the test Keycloak is configured; the quick start starts the rest. */
function run(args: string[], more: Record<string, string> = {}): Running {
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd,
    env: { PATH: process.env['PATH'] ?? '', ...compileCache(), ...settings, ...more },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
  }
  const ended = once(child, 'close').then(([code]) => code as number | null);
  return { child, printed: () => text, ended };
}

async function start(more: Record<string, string> = {}): Promise<Running> {
  const running = run(['dev'], more);
  const ready = new Promise<void>((resolve) => {
    running.child.stdout?.on('data', () => {
      if (running.printed().includes('Ctrl-C stops')) resolve();
    });
  });
  await Promise.race([ready, running.ended]);
  if (!running.printed().includes('Ctrl-C stops')) throw new Error(running.printed());
  return running;
}

async function output(args: string[], more?: Record<string, string>): Promise<string> {
  const running = run(args, more);
  const code = await running.ended;
  if (code !== 0) throw new Error(`${code}: ${running.printed()}`);
  return running.printed();
}

interface Stack {
  app_url: string;
  database_url: string;
  pids: { app: number; postgres: number };
}
const stackFile = () => path.join(cwd, '.data', 'stack.json');
const readStack = () => JSON.parse(readFileSync(stackFile(), 'utf8')) as Stack;

beforeAll(async () => {
  cwd = mkdtempSync(path.join(tmpdir(), 'ops-start-'));
  chmodSync(cwd, 0o755);
  const port = await freePort();
  const web = await createWebClient(`http://localhost:${port}`);
  vault = await createVaultRealm();
  settings = {
    PORT: String(port),
    METRICS_PORT: '0',
    POSTGRES_PORT: '0',
    KEYCLOAK_URL: stack.keycloak.url,
    KEYCLOAK_WEB_CLIENT_ID: web.id,
    KEYCLOAK_WEB_CLIENT_SECRET: web.secret,
    KEYCLOAK_SERVICE_CLIENT_SECRET: stack.keycloak.serviceClient.secret,
    KEYCLOAK_VAULT_REALM: vault.realm,
    KEYCLOAK_VAULT_CLIENT_SECRET: stack.keycloak.vaultClient.secret,
  };
});
afterAll(async () => {
  rmSync(cwd, { recursive: true });
  await vault.drop();
});

describe('npm start', () => {
  let running: Running;
  beforeAll(async () => {
    running = await start();
  });
  afterAll(async () => {
    running.child.kill('SIGINT');
    await running.ended;
  });

  it('prints the address and the next request, and none of the generated secrets', () => {
    const printed = running.printed();
    expect(printed).toContain(`http://localhost:${settings['PORT']}`);
    expect(printed).toContain('npm run -s ops -- session starter');
    const secrets = [
      ...readFileSync(path.join(cwd, '.env'), 'utf8').matchAll(/^\w+=(.+)$/gm),
      ...readStack().database_url.matchAll(/:([^:@]+)@/g),
    ].map((match) => match[1] ?? '');
    expect(secrets).toHaveLength(3);
    for (const secret of secrets) expect(printed).not.toContain(secret);
  });

  it('serves the page', async () => {
    const page = await fetch(readStack().app_url);
    expect([page.status, await page.text()]).toEqual([200, expect.stringContaining('name="page-settings"')]);
  });

  it('restricts generated files to their owner', () => {
    expect(statSync(path.join(cwd, '.env')).mode & 0o777).toBe(0o600);
    expect(statSync(stackFile()).mode & 0o777).toBe(0o600);
    expect(statSync(path.join(cwd, '.data', 'secrets')).mode & 0o777).toBe(0o700);
  });

  it('is refused for a data directory in use, and the first start keeps running', async () => {
    const second = run(['dev'], { PORT: '0' });
    expect(await second.ended).toBe(1);
    expect(second.printed()).toContain(`Process ${running.child.pid} already runs from`);
    expect(existsSync(stackFile())).toBe(true);
    expect(isProcessRunning(readStack().pids.postgres)).toBe(true);
  });

  it('is refused with the name of the setting if its port is in use', async () => {
    const second = run(['dev'], { DATA_DIR: '.data-2' });
    expect(await second.ended).toBe(1);
    expect(second.printed()).toContain(`Port ${settings['PORT']} is in use by another program.`);
    expect(second.printed()).toContain('set PORT to another');
  });

  it('is refused beyond loopback', async () => {
    const second = run(['dev'], { DATA_DIR: '.data-2', HOST: '0.0.0.0' });
    expect(await second.ended).toBe(1);
    expect(second.printed()).toContain('HOST is not loopback');
  });

  it('supports `session`, which signs in a demo user through Keycloak and prints only the cookie', async () => {
    const session = (await output(['session', 'starter'])).trim();
    const answer = await fetch(`${readStack().app_url}/api/v1/me`, {
      headers: { cookie: `session=${session}` },
    });
    expect(await answer.json()).toMatchObject({ username: 'starter', tier: 'starter' });
  });

  it('gives `session` no bypass: Keycloak refuses a user with another password', async () => {
    const user = await createUser();
    const refused = run(['session', user.username]);
    expect(await refused.ended).toBe(1);
    expect(refused.printed()).toMatch(
      /Keycloak refused the sign-in: Invalid.* The demo users are free, .*operator\.$/m,
    );
  });

  it.each(['session', 'token'])('refuses `%s` in a deployment', async (command) => {
    const refused = run([command, 'starter'], { DEPLOY_ENV: 'production' });
    expect(await refused.ended).toBe(1);
    expect(refused.printed()).toContain(`\`${command}\` is for local mode, and DEPLOY_ENV is set`);
  });

  it('supports `token`, which prints a token with which the printed lines work', async () => {
    const token = (await output(['token', 'starter'])).trim();
    evidence.registerSecret('credential of a request', token);
    expect(token).toMatch(/^oc_[0-9A-Za-z]{38}$/);
    const printed = running.printed().replaceAll('$(npm run -s ops -- token starter)', token);
    const [curl = ''] = /^ *curl .*"Authorization: Bearer[^]*?}'$/m.exec(printed) ?? [];
    const chat = await promisify(execFile)('sh', ['-c', `${curl} -sS`]);
    expect(JSON.parse(chat.stdout)).toMatchObject({ object: 'chat.completion' });
    const baseUrl = `http://localhost:${settings['PORT']}`;
    expect(printed).toContain(`export OPENAI_BASE_URL=${baseUrl}/v1 OPENAI_API_KEY=${token}`);
    expect(printed).toContain(`ANTHROPIC_BASE_URL=${baseUrl} ANTHROPIC_AUTH_TOKEN=${token} claude`);
  });

  it('supports `demo`, from the system default to the user’s own key', async () => {
    const printed = await output(['demo']);
    const scopes = [...printed.matchAll(/^x-ops-key-scope: (\w+)$/gm)].map((match) => match[1]);
    expect(scopes).toEqual(['system', 'personal', 'personal']);
    expect(printed).toContain('data: [DONE]');
  });

  it('supports `doctor` on the running stack', async () => {
    const printed = await output(['doctor']);
    expect(printed).toMatch(/^0 error\(s\)/m);
  });

  it('supports commands about stored keys while the app runs', async () => {
    const check = run(['keys', 'check', '--json']);
    // The realm of the test servers has keys of other installations, which count as undecryptable.
    await check.ended;
    expect(JSON.parse(check.printed())).toMatchObject({ canary_ring_key: 1 });
  });
});

describe('stopping', () => {
  it('stops everything on Ctrl-C, and commands then report that nothing runs', async () => {
    const running = await start();
    const { pids } = readStack();
    running.child.kill('SIGINT');
    expect(await running.ended).toBe(0);
    expect(isProcessRunning(pids.postgres)).toBe(false);
    expect(existsSync(stackFile())).toBe(false);
    const refused = run(['session', 'starter']);
    expect(await refused.ended).toBe(1);
    expect(refused.printed()).toContain('`npm start` first');
  });

  it('after SIGKILL, the next start replaces the old server and keeps keys and settings', async () => {
    const killed = await start();
    const before = { ...readStack(), env: readFileSync(path.join(cwd, '.env'), 'utf8') };
    killed.child.kill('SIGKILL');
    await killed.ended;
    expect(isProcessRunning(before.pids.postgres)).toBe(true);
    const running = await start();
    expect(isProcessRunning(before.pids.postgres)).toBe(false);
    expect(readFileSync(path.join(cwd, '.env'), 'utf8')).toBe(before.env);
    running.child.kill('SIGINT');
    await running.ended;
  });

  it('stops everything, with a message that names the part, if a part exits unexpectedly', async () => {
    const running = await start();
    process.kill(readStack().pids.postgres, 'SIGKILL');
    expect(await running.ended).toBe(1);
    expect(running.printed()).toContain('Postgres was killed by SIGKILL unexpectedly');
  });
});

describe('node main.js serve', () => {
  it('starts nothing and lists all errors of the configuration', async () => {
    const empty = mkdtempSync(path.join(tmpdir(), 'ops-serve-'));
    const child = spawn(process.execPath, [MAIN, 'serve'], {
      cwd: empty,
      env: { DEPLOY_ENV: 'production', DEBUG: 'true' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let printed = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      printed += text;
    });
    const [code] = (await once(child, 'close')) as [number];
    expect(code).toBe(1);
    for (const name of ['DATABASE_URL', 'ENCRYPTION_KEY', 'KEYCLOAK_URL', 'PUBLIC_URL', 'DEBUG']) {
      expect(printed).toContain(name);
    }
    expect(existsSync(path.join(empty, '.env'))).toBe(false);
    rmSync(empty, { recursive: true });
  });
});

describe('npm start with an ENCRYPTION_KEY that does not fit the stored keys', () => {
  it('keeps the servers running for the command that gives up the lost key, then starts', async () => {
    const first = await start();
    const cookie = `session=${(await output(['session', 'starter'])).trim()}`;
    const added = await fetch(`${readStack().app_url}/api/v1/byok/keys/add`, {
      method: 'POST',
      headers: { cookie, 'content-type': 'application/json' },
      body: JSON.stringify({ provider: 'demo', key: `demo-${randomPassword()}`, label: 'lost' }),
    });
    expect(added.ok).toBe(true);
    first.child.kill('SIGINT');
    await first.ended;

    const newKey = { ENCRYPTION_KEY: fernetKey() };
    const waiting = await start(newKey);
    expect(waiting.printed().match(/ENCRYPTION_KEY does not fit/g)).toHaveLength(1);
    expect(waiting.printed()).toMatch(/keys rotate --accept-loss`.*delete \.data/s);
    await output(['keys', 'rotate', '--accept-loss'], newKey);
    const { pids } = readStack();
    waiting.child.kill('SIGINT');
    expect(await waiting.ended).toBe(1);
    expect(isProcessRunning(pids.postgres)).toBe(false);
    expect(existsSync(stackFile())).toBe(false);

    const running = await start(newKey);
    expect(running.printed()).toContain('Ops Center is running.');
    running.child.kill('SIGINT');
    expect(await running.ended).toBe(0);
  });
});

it('a start that generates an ENCRYPTION_KEY says that earlier data needs the earlier key', async () => {
  writeFileSync(path.join(cwd, '.env'), 'ENCRYPTION_KEY=\n');
  const refused = run(['dev'], { POSTGRES_PORT: 'none' });
  expect(await refused.ended).toBe(1);
  expect(refused.printed()).toMatch(/Generated ENCRYPTION_KEY.*\.data is from an earlier start/s);
});
