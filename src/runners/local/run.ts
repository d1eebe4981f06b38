import type { Log } from '../../lib/log.ts';
import type { ExitEvent, Job, Limits, RunEvent, StopCause } from '../runner.ts';
import { getInterpreter } from '../shell.ts';
import { findWorkingFolder, WRITABLE_FOLDERS } from './bwrap-arguments.ts';
import { readSandboxOutput } from './output.ts';
import { startSandbox, type Sandbox, type SandboxDeps, type SandboxExit } from './sandbox.ts';

/** Of the output of a failed bwrap, in the log. */
const MAX_LOGGED_BYTES = 2_000;

export interface LocalRunDeps {
  /** Undefined when no sandbox can be created; then `findUnavailableReason` returns a reason. */
  deps: (SandboxDeps & { log: Log }) | undefined;
  /** Why no program may run here, for users; undefined when programs may run. */
  findUnavailableReason: () => Promise<string | undefined>;
}

/**
 * Runs a job in a sandbox and verifies that nothing of it is left.
 * @param workspace the working folder of jobs without one; null is `/work`.
 */
export async function* runLocalJob(
  job: Job,
  workspace: string | null,
  limits: Limits,
  signal: AbortSignal,
  { deps, findUnavailableReason }: LocalRunDeps,
): AsyncGenerator<RunEvent, void> {
  yield { type: 'phase', phase: 'preparing' };
  const reason = await findUnavailableReason();
  const folder = findWorkingFolder(job.workdir ?? workspace);
  if (signal.aborted) yield toStopExit(signal, 'verified');
  else if (reason !== undefined || deps === undefined)
    yield { ...toStartFailure('failed', job), message: reason ?? null };
  else if (folder === undefined) yield toStartFailure('folder', job);
  else yield* runInSandbox(await startSandbox(job, folder, limits, deps), job, signal, deps.log);
}

async function* runInSandbox(
  sandbox: Sandbox,
  job: Job,
  signal: AbortSignal,
  log: Log,
): AsyncGenerator<RunEvent, void> {
  signal.addEventListener('abort', sandbox.kill);
  if (signal.aborted) sandbox.kill();
  try {
    const start = await sandbox.start;
    if (start === 'started') {
      yield { type: 'phase', phase: 'started' };
      yield* readSandboxOutput(sandbox);
    } else if (start === 'failed') await logBwrapOutput(sandbox, log);
    const exit = await sandbox.end;
    if (isAborted(signal)) yield toStopExit(signal, exit.cleanup);
    else if (start === 'started') yield toExit(exit);
    else yield { ...toStartFailure(start, job), cleanup: exit.cleanup };
  } finally {
    signal.removeEventListener('abort', sandbox.kill);
    sandbox.kill();
    sandbox.stdout.destroy();
    sandbox.stderr.destroy();
  }
}

/** A function, because TypeScript would otherwise narrow `aborted` across the await. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

const EXIT_DEFAULTS = { type: 'exit', code: null, signal: null, message: null } as const;

function toStopExit(signal: AbortSignal, cleanup: ExitEvent['cleanup']): ExitEvent {
  return { ...EXIT_DEFAULTS, cause: signal.reason as StopCause, cleanup };
}

/** bwrap reports a signal as 128 plus its number. A program can exit with such a code too, so it stays a code. */
function toExit({ code, isOutOfMemory, cleanup }: SandboxExit): ExitEvent {
  if (isOutOfMemory && code !== 0) return { ...EXIT_DEFAULTS, cause: 'out_of_memory', code, cleanup };
  if (code === null) return { ...EXIT_DEFAULTS, cause: 'lost', cleanup, message: EXIT_UNKNOWN };
  return { ...EXIT_DEFAULTS, cause: 'exited', code, cleanup };
}

const EXIT_UNKNOWN = 'The sandbox was killed from outside, so it is unknown how the program ended.';

/** For users. */
export function createNotInstalledMessage({ program }: Job): string {
  return `This machine has no ${getInterpreter(program).names[0]}. Install it, or use another language.`;
}

function toStartFailure(reason: Exclude<Awaited<Sandbox['start']>, 'started'>, job: Job): ExitEvent {
  const message = {
    folder: `The working folder does not exist. Use ${WRITABLE_FOLDERS.join(' or ')}.`,
    interpreter: createNotInstalledMessage(job),
    failed: 'The sandbox could not be created. See the log of the app.',
    late: 'The program was not started within 60 s. This machine may be overloaded: try again later.',
  }[reason];
  return { ...EXIT_DEFAULTS, cause: 'infrastructure', cleanup: 'verified', message };
}

/** The output of bwrap is for the operator only: it contains details of this machine. */
async function logBwrapOutput({ stderr }: Sandbox, log: Log): Promise<void> {
  let complaint = '';
  for await (const chunk of stderr) complaint = `${complaint}${String(chunk)}`.slice(0, MAX_LOGGED_BYTES);
  log.error({ complaint }, 'bwrap could not create a sandbox');
}
