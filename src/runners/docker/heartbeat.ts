import type { Engine } from './engine.ts';

/** One answer may be lost to a busy engine. */
const MAX_MISSED_PINGS = 2;

/**
 * Asks an engine now and then whether it is there, since a path that has died says nothing.
 * @param onLost called at most once, after two questions without an answer.
 * @returns ends it.
 */
export function monitorEngine(engine: Engine, intervalMs: number, onLost: () => void): () => void {
  const stopping = new AbortController();
  let missed = 0;
  const timer = setInterval(() => {
    const pingSignal = AbortSignal.any([stopping.signal, AbortSignal.timeout(intervalMs)]);
    engine.ping(pingSignal).then(
      () => {
        missed = 0;
      },
      () => {
        missed += 1;
        if (missed < MAX_MISSED_PINGS || stopping.signal.aborted) return;
        stop();
        onLost();
      },
    );
  }, intervalMs).unref();
  const stop = () => {
    clearInterval(timer);
    stopping.abort();
  };
  return stop;
}
