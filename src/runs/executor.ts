import type { OpenServer } from '../servers/service.ts';
import type { ExitEvent, Job, Limits } from '../runners/runner.ts';
import { createRunExit, type RunExit } from './events.ts';
import { stopMessage, type ActiveRun } from './active-run.ts';
import { createOutputChunker } from './output-chunker.ts';

/** Everything that a run needs to start. */
export interface PreparedRun {
  server: OpenServer;
  job: Job;
  limits: Limits;
}

/** Runs the job and appends its events to the run's buffer. @returns the exit, which is not yet in the buffer. */
export async function executeRun(run: ActiveRun, { server, job, limits }: PreparedRun): Promise<RunExit> {
  const { events } = run;
  const chunker = createOutputChunker((output) => {
    events.append(output);
  });
  let startedAtMs: number | undefined;
  let exit: ExitEvent | undefined;
  try {
    for await (const event of server.runner.run(server.target, job, limits, run.signal)) {
      if (event.type === 'output') chunker.write(event.stream, event.data);
      else if (event.type === 'exit') exit = event;
      else {
        chunker.flush();
        events.append({ type: 'phase', phase: event.phase, position: null });
        if (event.phase === 'started') startedAtMs = performance.now();
      }
    }
  } finally {
    chunker.end();
  }
  const durationMs = startedAtMs === undefined ? 0 : Math.round(performance.now() - startedAtMs);
  if (exit === undefined) return { ...createRunExit('lost', null, 'unverified'), durationMs };
  const message = exit.message ?? (exit.cause === 'cancelled' ? stopMessage(run.stopReason) : null);
  return { ...exit, message, durationMs };
}
