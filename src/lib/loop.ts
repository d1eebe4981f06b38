import type { Log } from './log.ts';

/** A piece of work that repeats until it is stopped. */
export interface Loop {
  /** Resolves when the first round is over, whether it worked or not. */
  start(): Promise<void>;
  /** Resolves when no round runs any more. */
  stop(): Promise<void>;
}

/**
 * Builds a loop with a pause of `intervalMs` between the rounds. A round that fails is tried again; the log
 * hears of an outage once when it begins and once when it ends.
 */
export function createLoop(name: string, intervalMs: number, round: () => Promise<void>, log: Log): Loop {
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  let stopped = false;
  let failing = false;

  async function attempt(): Promise<void> {
    try {
      await round();
      if (failing) log.info({ loop: name }, `${name} works again`);
      failing = false;
    } catch (error) {
      if (!failing)
        log.warn(
          { loop: name, err: error },
          `${name} fails; it is tried again every ${String(intervalMs)} ms`,
        );
      failing = true;
    }
    if (!stopped) timer = setTimeout(() => void begin(), intervalMs).unref();
  }

  function begin(): Promise<void> {
    running = attempt();
    return running;
  }

  return {
    start: begin,
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}
