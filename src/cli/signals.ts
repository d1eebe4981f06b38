export interface StopSignals {
  /** Aborted by the first Ctrl-C (or SIGTERM, SIGHUP): stop in order. */
  stop: AbortSignal;
  /** Aborted by the second: do not wait for streams to finish. */
  hurry: AbortSignal;
}

/** Turns the process's signals into two that can be waited for. */
export function listenForStop(): StopSignals {
  const stop = new AbortController();
  const hurry = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (stop.signal.aborted) hurry.abort();
      else stop.abort();
    });
  }
  return { stop: stop.signal, hurry: hurry.signal };
}

/** Resolves when the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else
      signal.addEventListener(
        'abort',
        () => {
          resolve();
        },
        { once: true },
      );
  });
}
