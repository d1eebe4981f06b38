import { describeShellStart, type StartedCommand } from '../../lib/ssh/shell-start.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { SshInterpreters } from '../../lib/ssh/program-settings.ts';
import { LANGUAGES, type ExitEvent, type Program, type StopCause } from '../runner.ts';
import { isSignalName, MAX_EXIT_CODE } from '../shell.ts';
import { createMissingInterpreterMessage } from './interpreters.ts';
import { REQUIRED_TOOLS } from './scripts.ts';
import type { SshSessionResult } from './session.ts';

/** A job that cannot be sent to a host. The message is for users. */
export class InvalidJobError extends Error {
  override readonly name = 'InvalidJobError';
}

/** The exit of a run whose launcher was not started. @throws an error that is not for users. */
export function toSshStartFailure(error: unknown, signal: AbortSignal): ExitEvent {
  const exit = { type: 'exit', code: null, signal: null, cleanup: 'verified' } as const;
  if (signal.aborted) return { ...exit, cause: signal.reason as StopCause, message: null };
  if (error instanceof SshError || error instanceof InvalidJobError)
    return { ...exit, cause: 'infrastructure', message: error.message };
  throw error;
}

/** Determines how a run ended whose channel has closed. */
export function toSshExit(
  result: SshSessionResult,
  { cleanup, interpreters }: { cleanup: ExitEvent['cleanup']; interpreters: SshInterpreters },
  signal: AbortSignal,
): ExitEvent {
  const status = result.isStarted && result.status !== undefined ? result.status : NO_STATUS;
  const code = toValidExitCode(status.code);
  const name = status.signal;
  const exit = { type: 'exit', code, signal: toKnownSignal(name), cleanup, message: null } as const;
  if (signal.aborted) return { ...exit, cause: signal.reason as StopCause };
  if (!result.isStarted)
    return { ...exit, cause: 'infrastructure', message: toRefusalMessage(result, interpreters) };
  if (result.isSilent) return { ...exit, code: null, signal: null, cause: 'lost', message: NO_CONTACT };
  if (name !== null) return { ...exit, cause: 'signal' };
  if (code !== null) return { ...exit, cause: 'exited' };
  return { ...exit, cause: 'lost', message: status.code === null ? CONNECTION_LOST : INVALID_EXIT_CODE };
}

/** SSH transmits 32 bits, but an exit code has 8: null for a larger number, which is invalid. */
function toValidExitCode(code: number | null): number | null {
  return code !== null && code <= MAX_EXIT_CODE ? code : null;
}

/** The name is text from the server: null for one that is not a signal name. */
function toKnownSignal(name: string | null): string | null {
  return name !== null && isSignalName(name) ? name : null;
}

const NO_STATUS = { code: null, signal: null };
const INVALID_EXIT_CODE =
  'The server reported an invalid exit status, so it is unknown how the program ended.';
const CONNECTION_LOST =
  'The connection was lost while the program ran, so it is unknown how the program ended. The server kills it within ' +
  '15 s.';
const NO_CONTACT =
  'The server had no contact to the app for 15 s, so it killed the program. Check the network between them, then run ' +
  'this again.';

const NO_SHELL =
  'There is no sh on the PATH of the run. A PATH in the environment of the server or in env of the run replaces the ' +
  "account's: name the system's folders in it too, such as /usr/bin:/bin.";

const REFUSAL_MESSAGES: ReadonlyMap<string, string> = new Map([
  ['workdir', 'The working folder does not exist on the server, or this account may not enter it.'],
  [
    'folder',
    'The folder for the run could not be created on the server. Check that its temporary folder is writable and not full.',
  ],
  [
    'file',
    'A file of the run could not be written: a file of that name may exist already, the working folder may not be ' +
      'writable, or the disk may be full.',
  ],
  ['command', NO_SHELL],
  ['script', NO_SHELL],
  ['input', 'The job did not reach the server completely. Try again.'],
]);
const NO_REASON =
  'The server accepted the run but ended before the program started, and gave no reason. Check the limits of the ' +
  'account, such as processes (ulimit -u) and memory.';
const RUN: StartedCommand = { server: 'server', name: 'the command', data: 'the run' };

/** Why the shell of a command or the interpreter of code was not found, for users. */
export function createMissingProgramMessage(interpreters: SshInterpreters, program: Program): string {
  return 'command' in program ? NO_SHELL : createMissingInterpreterMessage(interpreters, program.language);
}

/** Why the program was not started, for users. */
export function toRefusalMessage(
  { isReady, refusal, startProblem }: SshSessionResult,
  interpreters: SshInterpreters,
): string {
  if (refusal?.reason === 'tools') return createMissingToolsMessage(refusal.missing);
  const language = LANGUAGES.find((each) => each === refusal?.reason);
  if (language !== undefined) return createMissingInterpreterMessage(interpreters, language);
  const message = REFUSAL_MESSAGES.get(refusal?.reason ?? '');
  if (message !== undefined) return message;
  if (startProblem === undefined && isReady) return NO_REASON;
  return describeShellStart(startProblem, RUN);
}

/** @param missing text from the server: only known names are passed on. */
function createMissingToolsMessage(missing: readonly string[]): string {
  const names = [...REQUIRED_TOOLS, 'setsid', 'timeout', '/proc'].filter((name) => missing.includes(name));
  return (
    `The server lacks what is needed to start and to end a run: ${names.join(', ')}. Install the programs (packages ` +
    "coreutils, util-linux, grep and awk), put them on the account's PATH, and mount /proc."
  );
}
