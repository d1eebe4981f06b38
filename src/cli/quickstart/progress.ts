/** One of the long steps of a start. */
export interface Step {
  title: string;
  /** @param note says what is being done now. */
  run: (note: (text: string) => void) => Promise<void>;
}

/** Runs steps, all at the same time, and shows how long each takes. */
export type RunSteps = (steps: readonly Step[]) => Promise<void>;

const REMIND_EVERY_MS = 15_000;
const REDRAW_EVERY_MS = 1_000;

/** Plain lines, for logs and pipes: one when a step begins or changes, one every 15 s, one at its end. */
export function plainProgress(print: (line: string) => void): RunSteps {
  async function runStep({ title, run }: Step): Promise<void> {
    const elapsed = stopwatch();
    let doing = 'starting';
    const say = (text: string) => {
      print(`${title}: ${text} (${elapsed()})`);
    };
    const reminder = setInterval(() => {
      say(`still ${doing}`);
    }, REMIND_EVERY_MS);
    try {
      await run((text) => {
        doing = text;
        say(text);
      });
      say('done');
    } catch (error) {
      say('failed');
      throw error;
    } finally {
      clearInterval(reminder);
    }
  }
  return async (steps) => {
    await Promise.all(steps.map(runStep));
  };
}

/** Lines that change in place, for a terminal. */
export function terminalProgress(): RunSteps {
  return async (steps) => {
    const { Listr } = await import('listr2');
    const list = new Listr(
      steps.map((step) => ({
        title: step.title,
        task: async (_context: unknown, task: { title?: string; output?: string }) => {
          const elapsed = stopwatch();
          let doing = '';
          const redraw = () => {
            task.title = `${step.title} (${elapsed()})${doing && `: ${doing}`}`;
          };
          const clock = setInterval(redraw, REDRAW_EVERY_MS);
          try {
            await step.run((text) => {
              doing = text;
              redraw();
            });
          } finally {
            clearInterval(clock);
            doing = '';
            redraw();
          }
        },
      })),
      // Signals are ours: the library would end the process without stopping what was started.
      { concurrent: true, registerSignalListeners: false },
    );
    await list.run();
  };
}

/** Time since it was made, as people write it. */
function stopwatch(): () => string {
  const startedMs = Date.now();
  return () => {
    const seconds = Math.round((Date.now() - startedMs) / 1000);
    return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  };
}
