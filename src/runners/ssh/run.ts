import { randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import type { SshConnections } from '../../lib/ssh/connections.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { ExitEvent, Job, RunEvent, StopCause, TargetServer } from '../runner.ts';
import { encodeSshJob, InvalidJobError } from './job-input.ts';
import { LAUNCH_COMMAND } from './scripts.ts';
import { openSshSession, WatcherTimeoutError, type SshSession, type SshSessionResult } from './session.ts';

/** What starts the launcher: on a kept connection, or in a test on one of its own. */
export type StartLauncher = (command: string, signal: AbortSignal) => ReturnType<SshConnections['exec']>;

export interface SshRunDeps {
  start: StartLauncher;
  /** Looks from a channel of its own, where the watcher was not heard. */
  cleanUp(runId: string): Promise<'verified' | 'unverified'>;
}

/** Runs a job on a host, as {@link import('../runner.ts').Runner.run} says. */
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
  const stop = () => session.terminate();
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  try {
    yield* readEvents(session);
    yield await createExitEvent(deps, job, session.result(), signal);
  } finally {
    signal.removeEventListener('abort', stop);
    // A reader that leaves early ends the run.
    session.terminate();
    session.close();
  }
}

/** Starts the launcher and sends it the job. @throws SshError, JobError, or the signal's reason. */
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
  end: SshSessionResult,
  signal: AbortSignal,
): Promise<ExitEvent> {
  const isClean = end.refusal?.isClean ?? end.isClean;
  const cleanup = isClean === undefined ? await deps.cleanUp(job.runId) : isClean ? 'verified' : 'unverified';
  const status = end.isStarted && end.status !== undefined ? end.status : NO_STATUS;
  const code = toValidExitCode(status.code);
  const name = status.signal;
  const exit = { type: 'exit', code, signal: toKnownSignal(name), cleanup, message: null } as const;
  if (signal.aborted) return { ...exit, cause: signal.reason as StopCause };
  if (!end.isStarted)
    return { ...exit, cause: 'infrastructure', message: toRefusalMessage(end.refusal?.reason) };
  if (name !== null) return { ...exit, cause: 'signal' };
  if (code !== null) return { ...exit, cause: 'exited' };
  return { ...exit, cause: 'lost', message: status.code === null ? CONNECTION_LOST : INVALID_EXIT_CODE };
}

/** SSH has room for 32 bits, a program for 8: a larger number is made up by the server. */
function toValidExitCode(code: number | null): number | null {
  return code !== null && code <= 255 ? code : null;
}

/** The name is the server's own text: null for one that no system has. */
function toKnownSignal(name: string | null): string | null {
  return name !== null && Object.hasOwn(constants.signals, name) ? name : null;
}

const NO_STATUS = { code: null, signal: null };
const INVALID_EXIT_CODE =
  'The server told of an exit status that no program has, so nobody knows how it ended.';
const CONNECTION_LOST =
  'The connection broke off while the program ran, so nobody knows how it ended. Without its connection it is ended ' +
  'on the server within 15 s.';

const REFUSAL_MESSAGES: ReadonlyMap<string, string> = new Map([
  [
    'tools',
    'The server lacks "setsid" (util-linux) or "timeout" (coreutils), which end a run safely. Install them.',
  ],
  ['workdir', 'The working folder does not exist on the server, or this account may not enter it.'],
  [
    'folder',
    'No folder for the run could be made on the server: is its temporary folder writable, and not full?',
  ],
  [
    'file',
    'A file of the run could not be written: one of that name may be there already, or the working folder cannot be ' +
      'written to, or the disk is full.',
  ],
  ['python', missingInterpreterMessage('python', 'python3')],
  ['javascript', missingInterpreterMessage('javascript', 'node')],
  ['bash', missingInterpreterMessage('bash', 'bash')],
  ['input', 'The run did not reach the server as a whole. Try again.'],
]);
const NO_LAUNCHER_OUTPUT =
  'The server accepted the sign-in but did not run the command: the account may have no shell, or a forced command, or ' +
  'its start files print too much.';

/** Why the launcher started nothing, for people. @param reason undefined when it was not heard of. */
export function toRefusalMessage(reason: string | undefined): string {
  return REFUSAL_MESSAGES.get(reason ?? '') ?? NO_LAUNCHER_OUTPUT;
}

function missingInterpreterMessage(language: string, program: string): string {
  return `The server has no interpreter for ${language}: install ${program}, or put it on the account's PATH.`;
}
