import { constants } from 'node:os';
import type { Language, Program } from './runner.ts';

/** A program that runs code. */
export interface Interpreter {
  /** Names of the executable, the preferred first. */
  names: readonly [string, ...string[]];
  /** Options for live output that leave no files behind. */
  flags: readonly string[];
  /** Of a file that holds the code, without a dot. */
  extension: string;
}

export const INTERPRETERS: Readonly<Record<Language, Interpreter>> = {
  // Unbuffered, and without compiled files.
  python: { names: ['python3', 'python'], flags: ['-u', '-B'], extension: 'py' },
  javascript: { names: ['node', 'nodejs'], flags: [], extension: 'js' },
  bash: { names: ['bash'], flags: [], extension: 'sh' },
};
const COMMAND_INTERPRETER: Interpreter = { names: ['sh'], flags: [], extension: 'sh' };

export function getInterpreter(program: Program): Interpreter {
  return 'command' in program ? COMMAND_INTERPRETER : INTERPRETERS[program.language];
}

/** Why code was not run in a container, for users. */
export function missingInImageMessage(image: string, interpreter: string): string {
  return `The image ${image} has no ${interpreter}: choose an image for this server that has it.`;
}

export function isVariableName(name: string): boolean {
  return /^[A-Za-z_][A-Za-z0-9_]*$/.test(name);
}

/** Quotes one word for a shell. Only a single quote ends a quoted string. */
export function quoteForShell(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Maximum exit code of a program. An untrusted server may report any number. */
export const MAX_EXIT_CODE = 255;
/** Shells report a signal as 128 + its number. Larger exit codes are ambiguous. */
export const SIGNAL_BASE = 128;

/** The name of the signal that a shell reports with this exit code, e.g. `SIGKILL`; null if it is none. */
export function findSignalName(exitCode: number): string | null {
  const number = exitCode - SIGNAL_BASE;
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0] ?? null;
}

export function isSignalName(name: string): boolean {
  return Object.hasOwn(constants.signals, name);
}
