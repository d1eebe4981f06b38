/** The pace at which the body of a request arrives. */
export interface UploadPace extends Disposable {
  received(bytes: number): void;
  /** Compares uploads by what arrived in about the last 5 s; in no unit. */
  speed(): number;
}

/** Time without a byte after which an upload ends. */
const MAX_IDLE_MS = 20_000;
/** Time for the first bytes; after it, the average since the beginning counts. */
const START_MS = 10_000;
/** 8 KB/s. A whole body has no time limit: a slow line is no reason to refuse it. */
const MIN_BYTES_PER_MS = (8 * 1024) / 1_000;
/** Older bytes count little: otherwise a client that began fast could stop for a long time. */
const SPEED_WINDOW_MS = 5_000;

/**
 * Measures an upload and calls back once when it is too slow: no byte for 20 s, or less than 8 KB/s on average beyond
 * the first 10 s. Disposal ends the measurement.
 */
export function watchUploadPace(onTooSlow: () => void): UploadPace {
  const startedAtMs = performance.now();
  let lastAtMs = startedAtMs;
  let receivedBytes = 0;
  let recentBytes = 0;
  let timer = setTimeout(check, START_MS);

  function deadlineMs(): number {
    return Math.min(lastAtMs + MAX_IDLE_MS, startedAtMs + START_MS + receivedBytes / MIN_BYTES_PER_MS);
  }

  /** Runs at the deadline that was known before, so that a chunk starts no timer. */
  function check(): void {
    const leftMs = deadlineMs() - performance.now();
    if (leftMs <= 0) onTooSlow();
    else timer = setTimeout(check, Math.ceil(leftMs));
  }

  return {
    received(bytes) {
      const nowMs = performance.now();
      recentBytes = recentBytes * decay(nowMs - lastAtMs) + bytes;
      receivedBytes += bytes;
      lastAtMs = nowMs;
    },
    speed() {
      const nowMs = performance.now();
      // Divided by the part of the window that has passed, so that a new upload is not taken for a slow one.
      const passed = 1 - decay(Math.max(nowMs - startedAtMs, 1));
      return (recentBytes * decay(nowMs - lastAtMs)) / passed;
    },
    [Symbol.dispose]: () => {
      clearTimeout(timer);
    },
  };
}

function decay(ms: number): number {
  return Math.exp(-ms / SPEED_WINDOW_MS);
}
