import { randomUUID } from 'node:crypto';
import { createLog } from '../../../src/lib/log.ts';
import { createLocalRunner, type LocalRunnerOptions } from '../../../src/runners/local/index.ts';
import type { ExitEvent, Job, Runner } from '../../../src/runners/runner.ts';
import { supervise } from '../../../src/runners/supervise.ts';
import { registerSandboxCreator } from '../../support/sandbox-leaks.ts';
import { localTarget } from './leaks.ts';

/** A runner of this machine, supervised as in the product. */
export function localRunner(options: Partial<LocalRunnerOptions> = {}): Runner {
  const log = createLog('silent');
  // Here too: instances in processes of their own come without test files.
  registerSandboxCreator();
  return supervise(createLocalRunner({ enabled: true, hiddenPaths: [], log, ...options }), { log });
}

/** Runs a job to its end; `onOutput` sees what was written so far. */
export async function runLocally(
  runner: Runner,
  job: Partial<Job>,
  onOutput: (text: string) => Promise<void> | void = () => undefined,
): Promise<{ text: string; exit: ExitEvent }> {
  const whole: Job = {
    ...{ runId: randomUUID(), program: { command: 'true' }, stdin: null, files: [], env: {}, workdir: null },
    ...job,
  };
  const limits = { timeoutMs: 60_000, maxOutputBytes: 2 ** 20, memoryBytes: null, cpus: null, pids: null };
  const signal = new AbortController().signal;
  let written = '';
  for await (const event of runner.run(localTarget(), whole, { ...limits, network: null }, signal)) {
    if (event.type === 'exit') return { text: written, exit: event };
    if (event.type === 'output') await onOutput((written += Buffer.from(event.data).toString()));
  }
  throw new Error('the run ended without an exit');
}
