export interface StopSignals {
  /** Aborted by the first Ctrl-C (or SIGTERM, SIGHUP): stop gracefully. */
  stop: AbortSignal;
  /** Aborted by the second signal: stop without waiting for streams. */
  force: AbortSignal;
}

/** Converts signals of the process to abort signals. */
export function listenForStopSignals(): StopSignals {
  const stop = new AbortController();
  const force = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (stop.signal.aborted) force.abort();
      else stop.abort();
    });
  }
  return { stop: stop.signal, force: force.signal };
}

/** Resolves when `signal` is aborted. */
export function whenAborted(signal: AbortSignal): Promise<void> {
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
