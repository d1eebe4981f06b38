import type { Log } from '../../lib/log.ts';
import type { ExitEvent, Job, Language, Limits, RunEvent, StopCause } from '../runner.ts';
import { findWorkingFolder, WRITABLE_FOLDERS } from './bwrap-arguments.ts';
import { readSandboxOutput } from './output.ts';
import { startSandbox, type Sandbox, type SandboxDeps, type SandboxExit } from './sandbox.ts';

/** Of what bwrap says when it fails, for the log. */
const MAX_LOGGED_BYTES = 2_000;

export interface LocalRunDeps {
  /** Undefined where no sandbox can be made; then there is a refusal. */
  deps: (SandboxDeps & { log: Log }) | undefined;
  /** Why no program may run here; undefined where one may. */
  findUnavailableReason: () => Promise<string | undefined>;
}

/**
 * Runs a job in a sandbox, and looks that nothing of it is left.
 * @param workspace where jobs run that name no folder; null is the sandbox's own.
 */
export async function* runLocalJob(
  job: Job,
  workspace: string | null,
  limits: Limits,
  signal: AbortSignal,
  { deps, findUnavailableReason: findRefusal }: LocalRunDeps,
): AsyncGenerator<RunEvent, void> {
  yield { type: 'phase', phase: 'preparing' };
  const refusal = await findRefusal();
  const folder = findWorkingFolder(job.workdir ?? workspace);
  if (signal.aborted) yield toStopExit(signal, 'verified');
  else if (refusal !== undefined || deps === undefined)
    yield { ...toStartFailure('failed', job), message: refusal ?? null };
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
    const end = await sandbox.end;
    if (isAborted(signal)) yield toStopExit(signal, end.cleanup);
    else if (start === 'started') yield toExit(end);
    else yield { ...toStartFailure(start, job), cleanup: end.cleanup };
  } finally {
    signal.removeEventListener('abort', sandbox.kill);
    sandbox.kill();
    sandbox.stdout.destroy();
    sandbox.stderr.destroy();
  }
}

/** Asked in a function of its own, since it changes while we wait. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

const EXIT_DEFAULTS = { type: 'exit', code: null, signal: null, message: null } as const;

function toStopExit(signal: AbortSignal, cleanup: ExitEvent['cleanup']): ExitEvent {
  return { ...EXIT_DEFAULTS, cause: signal.reason as StopCause, cleanup };
}

/** bwrap tells a signal as 128 and its number, which a program can also choose by itself: it stays a code. */
function toExit({ code, isOutOfMemory, cleanup }: SandboxExit): ExitEvent {
  if (isOutOfMemory && code !== 0) return { ...EXIT_DEFAULTS, cause: 'out_of_memory', code, cleanup };
  if (code === null) return { ...EXIT_DEFAULTS, cause: 'lost', cleanup, message: EXIT_UNKNOWN };
  return { ...EXIT_DEFAULTS, cause: 'exited', code, cleanup };
}

const EXIT_UNKNOWN = 'The sandbox was ended from outside, and nobody could tell how the program did.';
const INTERPRETERS: Record<Language, string> = { python: 'python3', javascript: 'node', bash: 'bash' };

function toStartFailure(why: Exclude<Awaited<Sandbox['start']>, 'started'>, { program }: Job): ExitEvent {
  const interpreter = 'language' in program ? INTERPRETERS[program.language] : 'sh';
  const message = {
    folder: `The folder is not there. A program here can work in ${WRITABLE_FOLDERS.join(' and ')}.`,
    interpreter: `There is no ${interpreter} among the programs of this machine. Install it, or use another language.`,
    failed: 'The sandbox could not be made. The log of the server says why.',
  }[why];
  return { ...EXIT_DEFAULTS, cause: 'infrastructure', cleanup: 'verified', message };
}

/** What bwrap wrote is for the operator: it names things of this machine. */
async function logBwrapOutput({ stderr }: Sandbox, log: Log): Promise<void> {
  let complaint = '';
  for await (const piece of stderr) complaint = `${complaint}${String(piece)}`.slice(0, MAX_LOGGED_BYTES);
  log.error({ complaint }, 'bwrap could not make a sandbox');
}
