/** A long step of the start. */
export interface ProgressStep {
  title: string;
  /** @param note receives the current activity. */
  run: (note: (text: string) => void) => Promise<void>;
}

/** Runs steps in parallel and shows how long each takes. */
export type RunSteps = (steps: readonly ProgressStep[]) => Promise<void>;

const REMINDER_INTERVAL_MS = 15_000;
const REDRAW_INTERVAL_MS = 1_000;

/**
 * Prints plain lines, for logs and pipes: one when a step starts or changes, one every 15 s, one at its end.
 * @param stop aborted by Ctrl-C. A step that fails after that is shown as stopped, not as failed.
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

/** Returns true if the step was cancelled by Ctrl-C or by the failure of another step. */
function isCancelled(error: unknown, stop: AbortSignal): boolean {
  return stop.aborted || (error as { name?: unknown } | null)?.name === 'AbortError';
}

/** Updates lines in place, for a terminal. @param stop see {@link plainProgress} */
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
            // The library would show an error thrown here as a failure.
            stopped.push(error);
            task.skip(`${step.title}: stopped`);
          } finally {
            clearInterval(clock);
            activity = '';
            redraw();
          }
        },
      })),
      {
        concurrent: true,
        // The library's signal handler would exit without stopping the started servers.
        registerSignalListeners: false,
        // The command prints the error that is thrown.
        rendererOptions: { showErrorMessage: false },
      },
    );
    await list.run();
    if (stopped.length > 0) throw stopped[0];
  };
}

/** The used part of the library's task. */
interface TaskLine {
  title?: string;
  skip(message: string): void;
}

/** Returns a function that formats the time since this call, e.g. `1 min 5 s`. */
function stopwatch(): () => string {
  const startedMs = Date.now();
  return () => {
    const seconds = Math.round((Date.now() - startedMs) / 1000);
    return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  };
}
