import { existsSync } from 'node:fs';
import path from 'node:path';
import type { Config, Environment } from '../config/config.ts';
import { resolveDataDir, createDataDir } from '../dev/quickstart/data-dir.ts';
import { ensureGeneratedSettings, readEnvFile } from './env-file.ts';
import { BOOTSTRAP_ADMIN } from '../dev/quickstart/keycloak/keycloak.ts';
import { acquireLock } from '../dev/quickstart/lock.ts';
import type { RunSteps } from '../dev/quickstart/progress.ts';
import { createSecrets } from '../dev/quickstart/secrets.ts';
import { planStart } from '../dev/quickstart/plan.ts';
import { removeStackFile, writeStackFile } from '../dev/quickstart/stack-file.ts';
import { startStack, stopStack, type RunningStack } from '../dev/quickstart/start.ts';
import { formatSummary } from '../dev/quickstart/summary.ts';
import { EncryptionKeyError } from '../lib/errors.ts';
import { assertLocalMode } from './settings.ts';
import { whenAborted, type StopSignals } from './signals.ts';

export interface DevOptions extends StopSignals {
  /** Settings of `.env`, overridden by the environment variables of the process. */
  environment: Environment;
  /** Folder of `.env`. Printed paths are relative to it. */
  cwd: string;
  print: (text: string) => void;
  runSteps: RunSteps;
}

/**
 * `npm start`: starts each server that is not configured, then the app. Runs until it is stopped or one part exits.
 * @returns false if a part exited on its own.
 * @throws StartError, ConfigError or AppError with a message for the terminal; nothing is left running then.
 */
export async function runDev(options: DevOptions): Promise<boolean> {
  assertLocalMode(options.environment, 'npm start');
  const environment = generateSettings(options);
  const plan = planStart(environment);
  const dataDir = createDataDir(resolveDataDir(environment, options.cwd));
  const release = await acquireLock({
    file: path.join(dataDir, 'lock'),
    waitMs: 0,
    busyMessage: (pid) =>
      `Process ${pid} already runs from ${dataDir}. Stop it, or set DATA_DIR to another folder.`,
  });
  const running: RunningStack = {};
  try {
    await startStack({ ...options, environment, plan, dataDir, secrets: createSecrets(dataDir) }, running);
    publishStack(options, dataDir, plan.config, running);
    return await untilStopped(options, running);
  } catch (error) {
    if (options.stop.aborted) return true;
    const isNeeded = running.postgres !== undefined || running.keycloak !== undefined;
    if (!(error instanceof EncryptionKeyError) || !isNeeded) throw error;
    return await keepServers(error, options, dataDir, plan.config, running);
  } finally {
    await stopStack(running, options);
    removeStackFile(dataDir);
    release();
  }
}

/** Generates ENCRYPTION_KEY and SESSION_SECRET if they are not set. Returns the environment with both. */
function generateSettings({ environment, cwd, print }: DevOptions): Environment {
  const dataDir = resolveDataDir(environment, cwd);
  const file = path.join(cwd, '.env');
  const added = ensureGeneratedSettings(file, environment);
  if (added.length === 0) return environment;
  print(
    `Generated ${added.join(' and ')} in .env. Keep that file: without it, stored keys cannot be decrypted.`,
  );
  if (added.includes('ENCRYPTION_KEY') && existsSync(path.join(dataDir, 'app.log')))
    print(
      `It had no ENCRYPTION_KEY, although ${path.relative(cwd, dataDir)} is from an earlier start. What was stored then ` +
        'needs the earlier key: if you have it, put it behind the new one (ENCRYPTION_KEY=new,old).',
    );
  const generated = readEnvFile(file);
  return { ...environment, ...Object.fromEntries(added.map((name) => [name, generated[name]])) };
}

/**
 * Keeps the started servers running without the app, for the command that corrects the error.
 * @returns false, since the app does not run.
 */
async function keepServers(
  error: EncryptionKeyError,
  options: DevOptions,
  dataDir: string,
  config: Config,
  running: RunningStack,
): Promise<false> {
  writeStack(dataDir, config, running);
  const data = path.relative(options.cwd, dataDir);
  options.print(
    [
      '',
      error.message,
      '',
      'The app does not run. The started servers keep running for the command, which you run in another terminal:',
      '`npm run ops -- keys rotate`, or, to give up what is stored under a lost key, ' +
        '`npm run ops -- keys rotate --accept-loss`. Then press Ctrl-C here and start again.',
      `To start over without any stored data instead: Ctrl-C, then delete ${data}.`,
      '',
      'Ctrl-C stops everything that was started.',
    ].join('\n'),
  );
  await untilStopped(options, running);
  return false;
}

function writeStack(dataDir: string, config: Config, running: RunningStack): void {
  const { keycloak, postgres, settings = {} } = running;
  writeStackFile(dataDir, {
    app_url: settings['PUBLIC_URL'] ?? config.publicUrl,
    app_host: config.host,
    keycloak_url: settings['KEYCLOAK_URL'] ?? '',
    admin_user: keycloak === undefined ? null : BOOTSTRAP_ADMIN,
    admin_password_file: keycloak === undefined ? null : createSecrets(dataDir).fileOf('keycloak-admin'),
    database_url: settings['DATABASE_URL'] ?? '',
    pids: { app: process.pid, keycloak: keycloak?.pid ?? null, postgres: postgres?.pid ?? null },
  });
}

function publishStack(options: DevOptions, dataDir: string, config: Config, running: RunningStack): void {
  const { server, keycloak, demo } = running;
  if (server === undefined) throw new Error('the stack has no server');
  writeStack(dataDir, config, running);
  const adminPasswordFile = createSecrets(dataDir).fileOf('keycloak-admin');
  options.print(
    formatSummary({
      appUrl: server.url,
      cookieName: config.sessionCookieName,
      ownKeycloak:
        keycloak === undefined || demo === undefined
          ? null
          : { url: keycloak.url, adminUser: BOOTSTRAP_ADMIN, adminPasswordFile, demo },
      logFile: path.join(dataDir, 'app.log'),
      cwd: options.cwd,
    }),
  );
}

/** Waits for Ctrl-C or for the exit of one part: the others cannot work without it. */
async function untilStopped(options: DevOptions, { keycloak, postgres }: RunningStack): Promise<boolean> {
  const unexpectedExits = [
    ...(keycloak === undefined
      ? []
      : [keycloak.ended.then((exit) => `Keycloak ${exit} unexpectedly. See keycloak.log`)]),
    ...(postgres === undefined
      ? []
      : [postgres.ended.then((exit) => `Postgres ${exit} unexpectedly. See postgres.log`)]),
  ];
  const exitMessage = await Promise.race([whenAborted(options.stop), ...unexpectedExits]);
  if (exitMessage === undefined) return true;
  options.print(`${exitMessage} in DATA_DIR. Stopping all parts.`);
  return false;
}
