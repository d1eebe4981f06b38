import { randomUUID } from 'node:crypto';
import { createLog } from '../../../src/lib/log.ts';
import { createLocalRunner, type LocalRunnerOptions } from '../../../src/runners/local/index.ts';
import type { ExitEvent, Job, Limits, Runner } from '../../../src/runners/runner.ts';
import { supervise } from '../../../src/runners/supervise.ts';
import { registerSandboxCreator } from '../../support/sandbox-leaks.ts';
import { localTarget } from './leaks.ts';

export const NO_CEILINGS = { memoryBytes: null, cpus: null, pids: null };

/** Creates a supervised runner for this machine, as in the product. */
export function localRunner(options: Partial<LocalRunnerOptions> = {}): Runner {
  const log = createLog('silent');
  // Needed here too, because instances in separate processes run no test file.
  registerSandboxCreator();
  return supervise(
    createLocalRunner({ enabled: true, hiddenPaths: [], ceilings: NO_CEILINGS, log, ...options }),
    { log },
  );
}

/** Runs a job to its end. `onOutput` is called with the output so far. */
export async function runLocally(
  runner: Runner,
  job: Partial<Job>,
  onOutput: (text: string) => Promise<void> | void = () => undefined,
  requested: Partial<Limits> = {},
): Promise<{ text: string; exit: ExitEvent }> {
  const fullJob: Job = {
    ...{ runId: randomUUID(), program: { command: 'true' }, stdin: null, files: [], env: {}, workdir: null },
    ...job,
  };
  const limits: Limits = {
    ...{ timeoutMs: 60_000, maxOutputBytes: 2 ** 20 },
    ...{ memoryBytes: null, cpus: null, pids: null, network: null },
    ...requested,
  };
  const signal = new AbortController().signal;
  let output = '';
  for await (const event of runner.run(localTarget(), fullJob, limits, signal)) {
    if (event.type === 'exit') return { text: output, exit: event };
    if (event.type === 'output') await onOutput((output += Buffer.from(event.data).toString()));
  }
  throw new Error('the run ended without an exit');
}
