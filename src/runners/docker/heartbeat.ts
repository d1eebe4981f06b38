import type { Engine } from './engine.ts';

/** One missing response is tolerated, because the engine may be busy. */
const MAX_MISSED_PINGS = 2;

/**
 * Pings an engine regularly, because a broken network path causes no error by itself.
 * @param onLost called at most once, after two pings without a response.
 * @returns stops the pings.
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
