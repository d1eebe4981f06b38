import { SshError } from '../../lib/ssh/ssh-error.ts';
import { LANGUAGES, type ExitEvent, type Language, type StopCause } from '../runner.ts';
import { INTERPRETERS, isSignalName, MAX_EXIT_CODE } from '../shell.ts';
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
  cleanup: ExitEvent['cleanup'],
  signal: AbortSignal,
): ExitEvent {
  const status = result.isStarted && result.status !== undefined ? result.status : NO_STATUS;
  const code = toValidExitCode(status.code);
  const name = status.signal;
  const exit = { type: 'exit', code, signal: toKnownSignal(name), cleanup, message: null } as const;
  if (signal.aborted) return { ...exit, cause: signal.reason as StopCause };
  if (!result.isStarted)
    return { ...exit, cause: 'infrastructure', message: toRefusalMessage(result.refusal?.reason) };
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

const REFUSAL_MESSAGES: ReadonlyMap<string, string> = new Map([
  [
    'tools',
    'The server lacks "setsid" (util-linux) or "timeout" (coreutils), which are needed to terminate a run. Install them.',
  ],
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
  ...LANGUAGES.map((language): [string, string] => [language, missingInterpreterMessage(language)]),
  ['input', 'The job did not reach the server completely. Try again.'],
]);
const NO_LAUNCHER_OUTPUT =
  'The server accepted the sign-in but did not run the command: the account may have no shell or a forced command, or ' +
  "its shell's start files print too much.";

/** Why the program was not started, for users. @param reason undefined when the launcher did not report one. */
export function toRefusalMessage(reason: string | undefined): string {
  return REFUSAL_MESSAGES.get(reason ?? '') ?? NO_LAUNCHER_OUTPUT;
}

function missingInterpreterMessage(language: Language): string {
  return `The server has no interpreter for ${language}: install ${INTERPRETERS[language].names[0]}, or put it on the account's PATH.`;
}
