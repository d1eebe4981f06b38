import { randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import type { SshConnections } from '../../lib/ssh/connections.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { ExitEvent, Job, RunEvent, StopCause, TargetServer } from '../runner.ts';
import { encodeSshJob, InvalidJobError } from './job-input.ts';
import { LAUNCH_COMMAND } from './scripts.ts';
import { openSshSession, WatcherTimeoutError, type SshSession, type SshSessionResult } from './session.ts';

/** Starts the launcher on a pooled connection, or in a test on a dedicated one. */
export type StartLauncher = (command: string, signal: AbortSignal) => ReturnType<SshConnections['exec']>;

export interface SshRunDeps {
  start: StartLauncher;
  /** Cleans up over a separate channel; called when the watcher did not report. */
  cleanUp(runId: string): Promise<'verified' | 'unverified'>;
}

/** Implements {@link import('../runner.ts').Runner.run}. */
export async function* runSshJob(
  deps: SshRunDeps,
  target: Pick<TargetServer, 'workspacePath'>,
  job: Job,
  signal: AbortSignal,
): AsyncGenerator<RunEvent, void> {
  yield { type: 'phase', phase: 'preparing' };
  let session: SshSession;
  try {
    session = await startSshJob(deps.start, target, job, signal);
  } catch (error) {
    yield toStartFailure(error, signal);
    return;
  }
  const terminate = () => session.terminate();
  signal.addEventListener('abort', terminate, { once: true });
  if (signal.aborted) terminate();
  try {
    yield* readEvents(session);
    yield await createExitEvent(deps, job, session.result(), signal);
  } finally {
    signal.removeEventListener('abort', terminate);
    // A caller that stops reading early ends the run.
    session.terminate();
    session.close();
  }
}

/** Starts the launcher and sends it the job. @throws SshError, InvalidJobError or the signal's reason. */
export async function startSshJob(
  start: StartLauncher,
  target: Pick<TargetServer, 'workspacePath'>,
  job: Job,
  signal: AbortSignal,
): Promise<SshSession> {
  const marker = randomBytes(16).toString('hex');
  const input = encodeSshJob(job, job.workdir ?? target.workspacePath, marker);
  return openSshSession(await start(LAUNCH_COMMAND, signal), marker, input);
}

async function* readEvents(session: SshSession): AsyncGenerator<RunEvent, void> {
  try {
    for (let event = await session.next(); event !== undefined; event = await session.next()) {
      yield event.type === 'started' ? { type: 'phase', phase: 'started' } : event;
    }
  } catch (error) {
    if (!(error instanceof WatcherTimeoutError)) throw error;
    session.close();
  }
}

function toStartFailure(error: unknown, signal: AbortSignal): ExitEvent {
  const exit = { type: 'exit', code: null, signal: null, cleanup: 'verified' } as const;
  if (signal.aborted) return { ...exit, cause: signal.reason as StopCause, message: null };
  if (error instanceof SshError || error instanceof InvalidJobError)
    return { ...exit, cause: 'infrastructure', message: error.message };
  throw error;
}

async function createExitEvent(
  deps: SshRunDeps,
  job: Job,
  result: SshSessionResult,
  signal: AbortSignal,
): Promise<ExitEvent> {
  const isClean = result.refusal?.isClean ?? result.isClean;
  const cleanup = isClean === undefined ? await deps.cleanUp(job.runId) : isClean ? 'verified' : 'unverified';
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

/** SSH transmits 32 bits, but an exit code has 8: null for a larger number, which a server invented. */
function toValidExitCode(code: number | null): number | null {
  return code !== null && code <= 255 ? code : null;
}

/** The name is text from the server: null for one that is not a signal name. */
function toKnownSignal(name: string | null): string | null {
  return name !== null && Object.hasOwn(constants.signals, name) ? name : null;
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
  ['python', missingInterpreterMessage('python', 'python3')],
  ['javascript', missingInterpreterMessage('javascript', 'node')],
  ['bash', missingInterpreterMessage('bash', 'bash')],
  ['input', 'The job did not reach the server completely. Try again.'],
]);
const NO_LAUNCHER_OUTPUT =
  'The server accepted the sign-in but did not run the command: the account may have no shell or a forced command, or ' +
  "its shell's start files print too much.";

/** Why the program was not started, for users. @param reason undefined when the launcher did not report one. */
export function toRefusalMessage(reason: string | undefined): string {
  return REFUSAL_MESSAGES.get(reason ?? '') ?? NO_LAUNCHER_OUTPUT;
}

function missingInterpreterMessage(language: string, program: string): string {
  return `The server has no interpreter for ${language}: install ${program}, or put it on the account's PATH.`;
}
