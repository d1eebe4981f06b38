import type { Engine } from './engine.ts';

/** One answer may be lost to a busy engine. */
const MAX_MISSED = 2;

/**
 * Asks an engine now and then whether it is there, since a path that has died says nothing.
 * @param onGone called at most once, after two questions without an answer.
 * @returns ends it.
 */
export function watchEngine(engine: Engine, intervalMs: number, onGone: () => void): () => void {
  const stopping = new AbortController();
  let missed = 0;
  const timer = setInterval(() => {
    const late = AbortSignal.any([stopping.signal, AbortSignal.timeout(intervalMs)]);
    engine.ping(late).then(
      () => {
        missed = 0;
      },
      () => {
        missed += 1;
        if (missed < MAX_MISSED || stopping.signal.aborted) return;
        stop();
        onGone();
      },
    );
  }, intervalMs).unref();
  const stop = () => {
    clearInterval(timer);
    stopping.abort();
  };
  return stop;
}
