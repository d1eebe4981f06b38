import type { Environment } from '../config/config.ts';
import { createKeyAdminContext, type KeyAdminContext } from './context.ts';
import { createLog } from '../lib/log.ts';
import { getRunningSettings } from './running-stack.ts';
import { loadConfig } from './settings.ts';

/** Environment and output of a command. */
export interface CommandIo {
  environment: Environment;
  cwd: string;
  /** Prints the report, to standard output. */
  print: (text: string) => void;
  /** Prints progress, to standard error: standard output may be JSON. */
  printProgress: (text: string) => void;
}

/** Progress is printed once per this number of steps. */
const PROGRESS_INTERVAL = 25;

/** Runs a command on the configured or running installation, and closes all connections afterwards. */
export async function withCommandContext<T>(
  { environment, cwd }: CommandIo,
  work: (context: KeyAdminContext) => Promise<T>,
  options: { isMoving?: boolean } = {},
): Promise<T> {
  const config = loadConfig(getRunningSettings(environment, cwd));
  const context = createKeyAdminContext(config, createLog('warn', process.stderr));
  try {
    await context.start(options.isMoving);
    return await work(context);
  } finally {
    await context.close();
  }
}

/** Returns a callback that prints progress on every 25th call. */
export function createProgressReporter<T>(
  printProgress: (text: string) => void,
  format: (done: T) => string,
): (done: T) => void {
  let calls = 0;
  return (done) => {
    calls += 1;
    if (calls % PROGRESS_INTERVAL === 0) printProgress(format(done));
  };
}

/** `1 key`, `2 keys`. */
export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/**
 * Makes untrusted text safe for a terminal. Replaces control characters and bidirectional controls, which could make
 * a line show other text.
 */
export function toPrintable(text: string): string {
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, '�');
}
