/**
 * A runner for this machine's bash, for tests of queue, history and viewers, which do not depend on the server type.
 * It starts real processes. Every run is a process group with the run's id in its environment.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import type { ExitEvent, Job, RunEvent, Runner, TargetServer } from '../../src/runners/runner.ts';
import { supervise } from '../../src/runners/supervise.ts';
import { createLog } from '../../src/lib/log.ts';
import { until } from '../support/until.ts';

const MARK = 'OPS_CENTER_TEST_RUN';

export function createProcessRunner(): Runner {
  const runner: Runner = {
    type: 'ssh',
    config: z.unknown(),
    secretFields: [],
    destination: () => null,
    jumpServerIds: () => [],
    needsHostKey: false,
    unenforceableLimits: (_config, limits) => (limits.memoryBytes === null ? [] : ['memoryBytes']),
    test: () => Promise.reject(new Error('this runner has no test')),
    run: (_target: TargetServer, job, _limits, signal) => runBash(job, signal),
    async cleanUp(_target, runId) {
      killProcesses(runId);
      await until(() => processesOf(runId).length === 0);
      return 'verified';
    },
    release: () => Promise.resolve(),
    releaseOwner: () => Promise.resolve(),
    listOwners: () => [],
    close: () => Promise.resolve(),
  };
  return supervise(runner, { log: createLog('silent') });
}

async function* runBash(job: Job, signal: AbortSignal): AsyncGenerator<RunEvent, void> {
  yield { type: 'phase', phase: 'preparing' };
  const text = 'command' in job.program ? job.program.command : job.program.code;
  const child = spawn('bash', ['--norc', '-c', text], {
    detached: true,
    env: { PATH: '/usr/bin:/bin', ...job.env, [MARK]: job.runId },
  });
  await once(child, 'spawn');
  const closed = once(child, 'close') as Promise<[number | null, string | null]>;
  const kill = () => {
    killProcesses(job.runId);
  };
  signal.addEventListener('abort', kill);
  if (signal.aborted) kill();
  child.stdin.on('error', () => undefined);
  child.stdin.end(job.stdin ?? '');
  yield { type: 'phase', phase: 'started' };
  yield* outputOf(child.stdout, child.stderr);
  const [code, name] = await closed;
  signal.removeEventListener('abort', kill);
  await until(() => processesOf(job.runId).length === 0);
  const cause: ExitEvent['cause'] = signal.aborted
    ? (signal.reason as 'cancelled')
    : name === null
      ? 'exited'
      : 'signal';
  yield { type: 'exit', cause, code, signal: name, cleanup: 'verified', message: null };
}

/** Both streams in the order of arrival. A reader that does not read stops the program. */
async function* outputOf(
  stdout: NodeJS.ReadableStream,
  stderr: NodeJS.ReadableStream,
): AsyncGenerator<RunEvent, void> {
  const sources = [
    { stream: 'stdout' as const, chunks: stdout[Symbol.asyncIterator]() },
    { stream: 'stderr' as const, chunks: stderr[Symbol.asyncIterator]() },
  ];
  const next = async (source: (typeof sources)[number]) => ({ source, result: await source.chunks.next() });
  const pending = new Map(sources.map((source) => [source, next(source)]));
  while (pending.size > 0) {
    const { source, result } = await Promise.race(pending.values());
    if (result.done === true) pending.delete(source);
    else {
      pending.set(source, next(source));
      yield { type: 'output', stream: source.stream, data: result.value as Buffer };
    }
  }
}

function killProcesses(runId: string): void {
  for (const pid of processesOf(runId)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // The process has already exited.
    }
  }
}

/** The ids of a run's processes that exist. */
export function processesOf(runId: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => hasMark(pid, `${MARK}=${runId}`));
}

function hasMark(pid: number, mark: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(mark);
  } catch {
    return false;
  }
}
