import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import path from 'node:path';
import { finished } from 'node:stream/promises';
import type { Environment } from '../config.ts';
import { startDemoUpstream } from '../demo-upstream/server.ts';
import { readDemo } from '../doctor/demo-users.ts';
import { createLog } from '../lib/log.ts';
import { startServer } from '../server.ts';
import { makeDataDir, dataDirOf } from './quickstart/data-dir.ts';
import { ensureGeneratedSettings } from './quickstart/env-file.ts';
import { BOOTSTRAP_ADMIN, startKeycloak, type RunningKeycloak } from './quickstart/keycloak.ts';
import { takeLock } from './quickstart/lock.ts';
import { createParts, type Parts } from './quickstart/parts.ts';
import { choosePort } from './quickstart/ports.ts';
import { startPostgres, type RunningPostgres } from './quickstart/postgres.ts';
import type { RunSteps, Step } from './quickstart/progress.ts';
import { addDemo, setWebClientAddresses, signInAsBootstrapAdmin } from './quickstart/realm-setup.ts';
import { createSecrets, type Secrets } from './quickstart/secrets.ts';
import {
  demoSettings,
  planStart,
  readSettings,
  refuseDeployment,
  startedSettings,
  type Plan,
} from './quickstart/settings.ts';
import { removeStackFile, writeStackFile } from './quickstart/stack-file.ts';
import { summaryText } from './quickstart/summary.ts';

export interface DevOptions {
  /** Our environment over the settings of `.env`. */
  environment: Environment;
  cwd: string;
  print: (text: string) => void;
  runSteps: RunSteps;
  /** Aborted by the first Ctrl-C: stop everything in order. */
  stop: AbortSignal;
  /** Aborted by the second: do not wait for streams to finish. */
  hurry: AbortSignal;
}

interface Start extends DevOptions {
  plan: Plan;
  dataDir: string;
  secrets: Secrets;
  parts: Parts;
  /** Aborted when the start is given up. */
  givenUp: AbortSignal;
  giveUp: (reason: unknown) => void;
}

interface Servers {
  postgres?: RunningPostgres;
  keycloak?: RunningKeycloak;
}

/**
 * `npm start`: starts what is configured nowhere, then the app, and keeps all of it until it is told to stop
 * or one part ends by itself.
 * @returns false when a part ended by itself.
 * @throws StartError or ConfigError in words for people; nothing is left running then.
 */
export async function runDev(options: DevOptions): Promise<boolean> {
  refuseDeployment(options.environment, 'npm start');
  const envFile = path.join(options.cwd, '.env');
  const added = ensureGeneratedSettings(envFile, options.environment);
  if (added.length > 0) options.print(`${added.join(' and ')} made and written to .env; keep that file.`);
  const { readEnvFile } = await import('./quickstart/env-file.ts');
  const environment = withDefaults(options.environment, readEnvFile(envFile));
  const plan = planStart(environment);
  const dataDir = makeDataDir(dataDirOf(environment, options.cwd));
  const release = await takeLock({
    file: path.join(dataDir, 'lock'),
    waitMs: 0,
    busyMessage: (pid) => `Process ${pid} already runs from ${dataDir}. Stop it, or set DATA_DIR to another folder.`,
  });
  const parts = createParts(options.hurry);
  try {
    return await startAndWait({ ...options, environment, plan, dataDir, parts });
  } finally {
    await parts.stopAll(options.print);
    removeStackFile(dataDir);
    release();
  }
}
