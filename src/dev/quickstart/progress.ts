/** One of the long steps of a start. */
export interface ProgressStep {
  title: string;
  /** @param note says what is being done now. */
  run: (note: (text: string) => void) => Promise<void>;
}

/** Runs steps, all at the same time, and shows how long each takes. */
export type RunSteps = (steps: readonly ProgressStep[]) => Promise<void>;

const REMINDER_INTERVAL_MS = 15_000;
const REDRAW_INTERVAL_MS = 1_000;

/**
 * Plain lines, for logs and pipes: one when a step begins or changes, one every 15 s, one at its end.
 * @param stop aborted when the person wants it all to end: what fails then has not failed by itself.
 */
export function plainProgress(print: (line: string) => void, stop: AbortSignal): RunSteps {
  async function runStep({ title, run }: ProgressStep): Promise<void> {
    const elapsed = stopwatch();
    let activity = 'starting';
    const printStep = (text: string) => {
      print(`${title}: ${text} (${elapsed()})`);
    };
    const reminder = setInterval(() => {
      printStep(`still ${activity}`);
    }, REMINDER_INTERVAL_MS);
    try {
      await run((text) => {
        activity = text;
        printStep(text);
      });
      printStep('done');
    } catch (error) {
      printStep(isCancelled(error, stop) ? 'stopped' : 'failed');
      throw error;
    } finally {
      clearInterval(reminder);
    }
  }
  return async (steps) => {
    await Promise.all(steps.map(runStep));
  };
}

/** Given up because the person, or the failure of another step, wanted it. */
function isCancelled(error: unknown, stop: AbortSignal): boolean {
  return stop.aborted || (error as { name?: unknown } | null)?.name === 'AbortError';
}

/** Lines that change in place, for a terminal. @param stop see {@link plainProgress} */
export function terminalProgress(stop: AbortSignal): RunSteps {
  return async (steps) => {
    const { Listr } = await import('listr2');
    const stopped: unknown[] = [];
    const list = new Listr(
      steps.map((step) => ({
        title: step.title,
        task: async (_context: unknown, task: TaskLine) => {
          const elapsed = stopwatch();
          let activity = '';
          const redraw = () => {
            task.title = `${step.title} (${elapsed()})${activity && `: ${activity}`}`;
          };
          const clock = setInterval(redraw, REDRAW_INTERVAL_MS);
          try {
            await step.run((text) => {
              activity = text;
              redraw();
            });
          } catch (error) {
            if (!isCancelled(error, stop)) throw error;
            // Thrown inside, it would be shown as a failure.
            stopped.push(error);
            task.skip(`${step.title}: stopped`);
          } finally {
            clearInterval(clock);
            activity = '';
            redraw();
          }
        },
      })),
      // Signals are ours: the library would end the process without stopping what was started.
      { concurrent: true, registerSignalListeners: false },
    );
    await list.run();
    if (stopped.length > 0) throw stopped[0];
  };
}

/** What is used of the library's task. */
interface TaskLine {
  title?: string;
  skip(message: string): void;
}

/** Time since it was made, as people write it. */
function stopwatch(): () => string {
  const startedMs = Date.now();
  return () => {
    const seconds = Math.round((Date.now() - startedMs) / 1000);
    return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  };
}
