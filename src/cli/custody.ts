import type { Environment } from '../config.ts';
import { createCustody, type Custody } from '../custody.ts';
import { createLog } from '../lib/log.ts';
import { settingsOfRunning } from './running-stack.ts';
import { readSettings } from './settings.ts';

/** What a command about stored keys needs of its surroundings. */
export interface CommandSurroundings {
  environment: Environment;
  cwd: string;
  /** To standard output: the report. */
  print: (text: string) => void;
  /** To standard error: progress, so that a report in JSON stays whole. */
  say: (text: string) => void;
}

/** Every so many steps, progress is told. */
const STEPS = 25;

/** Runs a command on what is configured or running, and closes every connection. */
export async function withCustody<T>(
  { environment, cwd }: CommandSurroundings,
  work: (custody: Custody) => Promise<T>,
  options: { isMoving?: boolean } = {},
): Promise<T> {
  const config = readSettings(settingsOfRunning(environment, cwd));
  const custody = createCustody(config, createLog('warn', process.stderr));
  try {
    await custody.start(options.isMoving);
    return await work(custody);
  } finally {
    await custody.close();
  }
}

/** Tells progress now and then. */
export function everySoOften<T>(say: (text: string) => void, words: (done: T) => string): (done: T) => void {
  let calls = 0;
  return (done) => {
    calls += 1;
    if (calls % STEPS === 0) say(words(done));
  };
}

/** `1 key`, `2 keys`. */
export function counted(count: number, thing: string): string {
  return `${count} ${thing}${count === 1 ? '' : 's'}`;
}

/**
 * Text from elsewhere for a terminal: control characters, and those that turn the direction of writing, could
 * make a line say something else.
 */
export function printable(text: string): string {
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, '�');
}
