import type { Environment } from '../config/config.ts';
import { createKeyAdminContext, type KeyAdminContext } from './context.ts';
import { createLog } from '../lib/log.ts';
import { getRunningSettings } from './running-stack.ts';
import { loadConfig } from './settings.ts';

/** What a command about stored keys needs of its surroundings. */
export interface CommandIo {
  environment: Environment;
  cwd: string;
  /** To standard output: the report. */
  print: (text: string) => void;
  /** To standard error: progress, so that a report in JSON stays whole. */
  printProgress: (text: string) => void;
}

/** Every so many steps, progress is told. */
const PROGRESS_INTERVAL = 25;

/** Runs a command on what is configured or running, and closes every connection. */
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

/** Tells progress now and then. */
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
 * Text from elsewhere for a terminal: control characters, and those that turn the direction of writing, could
 * make a line say something else.
 */
export function toPrintable(text: string): string {
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, '�');
}
