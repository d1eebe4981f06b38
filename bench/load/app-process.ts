import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startApp, type TestApp } from '../../test/support/app.ts';
import { evidence } from '../../test/support/evidence.ts';
import { until } from '../../test/support/until.ts';

const MAIN = path.resolve(import.meta.dirname, '..', '..', 'src', 'cli', 'main.ts');
const START_TIMEOUT_MS = 60_000;

/**
 * The app as a process of its own, which does nothing but serve. It is started in this process first, which prepares its
 * database and settings.
 * @param env additional settings.
 * @param options `recordsLog: false` writes the log to a file, for a measurement whose log is too large to be searched.
 */
export async function startAppProcess(
  env: Record<string, string>,
  { recordsLog = true } = {},
): Promise<TestApp & { pid: number }> {
  const prepared = await startApp({ env });
  await prepared.stop();
  const cwd = mkdtempSync(path.join(tmpdir(), 'ops-load-'));
  // For example `--cpu-prof --cpu-prof-dir=/tmp/profiles`.
  const options = (process.env['BENCH_APP_OPTIONS'] ?? '').split(' ').filter(Boolean);
  const output = recordsLog ? 'pipe' : openSync(path.join(cwd, 'app.log'), 'a');
  const child = spawn(process.execPath, [...options, MAIN, 'serve'], {
    cwd,
    env: { ...toEnvironment(prepared), ...env },
    stdio: ['ignore', output, 'inherit'],
  });
  if (typeof output === 'number') closeSync(output);
  child.stdout?.setEncoding('utf8').on('data', (lines: string) => {
    evidence.recordLog(lines);
  });
  const exited = once(child, 'exit');
  const isServing = () =>
    fetch(`${prepared.url}/livez`).then(
      ({ ok }) => ok,
      () => false,
    );
  await until(() => child.exitCode !== null || isServing(), Boolean, START_TIMEOUT_MS);
  if (child.exitCode !== null) throw new Error('the app has exited at its start');
  async function stop(): Promise<void> {
    child.kill();
    await exited;
    rmSync(cwd, { recursive: true });
  }
  const call = createRecordedCall(prepared);
  return { ...prepared, pid: child.pid ?? 0, call, stop, [Symbol.asyncDispose]: stop };
}

/** The search for secrets after the run covers the responses, as it does for an app in this process. */
function createRecordedCall(app: TestApp): TestApp['call'] {
  return async (...args) => {
    const response = await app.call(...args);
    if (response.headers.get('content-type') !== 'text/event-stream')
      evidence.recordResponse(Buffer.from(await response.clone().arrayBuffer()));
    return response;
  };
}

function toEnvironment({ config, url, databaseUrl }: TestApp): Record<string, string> {
  const { keycloak } = config;
  return {
    PATH: process.env['PATH'] ?? '',
    PORT: String(config.port),
    METRICS_PORT: String(config.metricsPort),
    PUBLIC_URL: url,
    DATABASE_URL: databaseUrl,
    ENCRYPTION_KEY: config.encryptionKeys.join(','),
    SESSION_SECRET: config.sessionSecret,
    KEYCLOAK_URL: keycloak.url,
    KEYCLOAK_WEB_CLIENT_ID: keycloak.web.id,
    KEYCLOAK_WEB_CLIENT_SECRET: keycloak.web.secret,
    KEYCLOAK_SERVICE_CLIENT_SECRET: keycloak.service.secret,
    KEYCLOAK_VAULT_CLIENT_SECRET: keycloak.vault.secret,
  };
}
