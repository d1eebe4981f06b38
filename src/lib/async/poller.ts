import type { Log } from '../log.ts';

/** Repeats a piece of work until it is stopped. */
export interface Poller {
  /** Resolves after the first round, also when it failed. */
  start(): Promise<void>;
  /** Resolves when no round is running. */
  stop(): Promise<void>;
}

/**
 * Waits `intervalMs` between the rounds. A failed round is retried in the next one. An outage is logged once when it
 * begins and once when it ends.
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
        log.warn({ loop: name, err: error }, `${name} fails; retrying every ${String(intervalMs)} ms`);
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
