import path from 'node:path';
import type { Environment } from '../config/config.ts';
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
import { assertLocalMode } from './settings.ts';
import { whenAborted, type StopSignals } from './signals.ts';

export interface DevOptions extends StopSignals {
  /** The process's environment laid over the settings of `.env`. */
  environment: Environment;
  /** Where `.env` is, and what paths are shown relative to. */
  cwd: string;
  print: (text: string) => void;
  runSteps: RunSteps;
}

/**
 * `npm start`: starts what is configured nowhere, then the app, and keeps all of it until it is told to stop
 * or one part ends by itself.
 * @returns false when a part ended by itself.
 * @throws StartError, ConfigError or AppError in words for people; nothing is left running then.
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
    publishStack(options, dataDir, plan.config.sessionCookieName, running);
    return await untilStopped(options, running);
  } catch (error) {
    if (!options.stop.aborted) throw error;
    return true;
  } finally {
    await stopStack(running, options);
    removeStackFile(dataDir);
    release();
  }
}

/** ENCRYPTION_KEY and SESSION_SECRET are made once; the environment then has them too. */
function generateSettings({ environment, cwd, print }: DevOptions): Environment {
  const file = path.join(cwd, '.env');
  const added = ensureGeneratedSettings(file, environment);
  if (added.length === 0) return environment;
  print(
    `Made ${added.join(' and ')} and wrote them to .env. Keep that file: without it stored keys cannot be read.`,
  );
  const made = readEnvFile(file);
  return { ...environment, ...Object.fromEntries(added.map((name) => [name, made[name]])) };
}

function publishStack(options: DevOptions, dataDir: string, cookieName: string, running: RunningStack): void {
  const { server, keycloak, postgres, settings, demo } = running;
  if (server === undefined || settings === undefined) throw new Error('nothing was started');
  const adminPasswordFile = createSecrets(dataDir).fileOf('keycloak-admin');
  writeStackFile(dataDir, {
    app_url: server.url,
    keycloak_url: settings['KEYCLOAK_URL'] ?? '',
    admin_user: keycloak === undefined ? null : BOOTSTRAP_ADMIN,
    admin_password_file: keycloak === undefined ? null : adminPasswordFile,
    database_url: settings['DATABASE_URL'] ?? '',
    pids: { app: process.pid, keycloak: keycloak?.pid ?? null, postgres: postgres?.pid ?? null },
  });
  options.print(
    formatSummary({
      appUrl: server.url,
      cookieName,
      ownKeycloak:
        keycloak === undefined || demo === undefined
          ? null
          : { url: keycloak.url, adminUser: BOOTSTRAP_ADMIN, adminPasswordFile, demo },
      logFile: path.join(dataDir, 'app.log'),
      cwd: options.cwd,
    }),
  );
}

/** Waits for Ctrl-C, or for a part that ends by itself: without it the rest is of no use. */
async function untilStopped(options: DevOptions, { keycloak, postgres }: RunningStack): Promise<boolean> {
  const unexpectedExits = [
    ...(keycloak === undefined
      ? []
      : [keycloak.ended.then((how) => `Keycloak ${how} by itself; see keycloak.log`)]),
    ...(postgres === undefined
      ? []
      : [postgres.ended.then((how) => `Postgres ${how} by itself; see postgres.log`)]),
  ];
  const exitMessage = await Promise.race([whenAborted(options.stop), ...unexpectedExits]);
  if (exitMessage === undefined) return true;
  options.print(`${exitMessage} in DATA_DIR. Stopping.`);
  return false;
}
