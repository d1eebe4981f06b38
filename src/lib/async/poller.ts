import type { Log } from '../log.ts';

/** A piece of work that repeats until it is stopped. */
export interface Poller {
  /** Resolves when the first round is over, whether it worked or not. */
  start(): Promise<void>;
  /** Resolves when no round runs any more. */
  stop(): Promise<void>;
}

/**
 * Builds a loop with a pause of `intervalMs` between the rounds. A round that fails is tried again; the log
 * hears of an outage once when it begins and once when it ends.
 */
export function createPoller(name: string, intervalMs: number, poll: () => Promise<void>, log: Log): Poller {
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  let isStopped = false;
  let isFailing = false;

  async function attempt(): Promise<void> {
    try {
      await poll();
      if (isFailing) log.info({ loop: name }, `${name} works again`);
      isFailing = false;
    } catch (error) {
      if (!isFailing)
        log.warn(
          { loop: name, err: error },
          `${name} fails; it is tried again every ${String(intervalMs)} ms`,
        );
      isFailing = true;
    }
    if (!isStopped) timer = setTimeout(() => void runRound(), intervalMs).unref();
  }

  function runRound(): Promise<void> {
    running = attempt();
    return running;
  }

  return {
    start: runRound,
    async stop() {
      isStopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}
