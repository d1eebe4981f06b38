import { randomBytes } from 'node:crypto';
import type { SshConnections } from '../../lib/ssh/connections.ts';
import type { Job, RunEvent, TargetServer } from '../runner.ts';
import { toSshExit, toSshStartFailure } from './exit.ts';
import { encodeSshJob } from './job-input.ts';
import { LAUNCH_COMMAND } from './scripts.ts';
import { openSshSession, WatcherTimeoutError, type SshSession } from './session.ts';

/** Starts the launcher on a pooled connection, or in a test on a dedicated one. */
export type StartLauncher = (command: string, signal: AbortSignal) => ReturnType<SshConnections['exec']>;

export interface SshRunDeps {
  start: StartLauncher;
  /** Cleans up over a separate channel; called when the host did not report. That verifies nothing. */
  cleanUp(runId: string): Promise<unknown>;
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
    yield toSshStartFailure(error, signal);
    return;
  }
  const terminate = () => session.terminate();
  signal.addEventListener('abort', terminate, { once: true });
  if (signal.aborted) terminate();
  try {
    yield* readEvents(session);
    const result = session.result();
    const { refusal, remains } = result;
    if (refusal === undefined && remains === undefined) await deps.cleanUp(job.runId);
    const isClean = refusal?.isClean ?? remains === 'none';
    yield toSshExit(result, isClean ? 'verified' : 'unverified', signal);
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
