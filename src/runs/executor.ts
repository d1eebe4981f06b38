import type { OpenServer } from '../servers/service.ts';
import type { ExitEvent, Job, Limits } from '../runners/runner.ts';
import { createRunExit, type RunExit } from './events.ts';
import { stopMessage, type ActiveRun } from './active-run.ts';
import { createOutputChunker } from './output-chunker.ts';

/** A run with all that it needs to begin. */
export interface PreparedRun {
  server: OpenServer;
  job: Job;
  limits: Limits;
}

/** Runs it, tells its journal, and answers how it ended, which the journal is not told yet. */
export async function executeRun(run: ActiveRun, { server, job, limits }: PreparedRun): Promise<RunExit> {
  const { events: journal } = run;
  const pieces = createOutputChunker((output) => {
    journal.append(output);
  });
  let startedAtMs: number | undefined;
  let exit: ExitEvent | undefined;
  try {
    for await (const event of server.runner.run(server.target, job, limits, run.signal)) {
      if (event.type === 'output') pieces.write(event.stream, event.data);
      else if (event.type === 'exit') exit = event;
      else {
        pieces.flush();
        journal.append({ type: 'phase', phase: event.phase, position: null });
        if (event.phase === 'started') startedAtMs = performance.now();
      }
    }
  } finally {
    pieces.end();
  }
  const durationMs = startedAtMs === undefined ? 0 : Math.round(performance.now() - startedAtMs);
  if (exit === undefined) return { ...createRunExit('lost', null, 'unverified'), durationMs };
  const message = exit.message ?? (exit.cause === 'cancelled' ? stopMessage(run.stopReason) : null);
  return { ...exit, message, durationMs };
}
