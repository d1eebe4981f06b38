import { AppError } from '../errors.ts';

/** 502 for whatever keeps an upstream from answering; the cause is for the log alone. */
export function upstreamUnreachable(cause: unknown): AppError {
  return new AppError('upstream_unreachable', 'The upstream could not be reached, or broke off.', { cause });
}

/** 504 for an upstream that is too slow in `phase`. */
export function upstreamTimeout(action: string): AppError {
  return new AppError('upstream_timeout', `The upstream took too long to ${action}.`);
}

/**
 * Runs `work` with a signal that ends with any of `signals`, and after `timeoutMs` with `upstream_timeout`.
 * All errors of `work` come out as AppError; once the signal has ended, its reason comes out instead.
 */
export async function withDeadline<T>(
  timeoutMs: number,
  signals: readonly AbortSignal[],
  work: (phase: AbortSignal) => Promise<T>,
): Promise<T> {
  for (const signal of signals) signal.throwIfAborted();
  const phase = new AbortController();
  const timer = setTimeout(() => {
    phase.abort(upstreamTimeout('accept a connection'));
  }, timeoutMs);
  const follow = (event: Event) => {
    phase.abort((event.target as AbortSignal).reason);
  };
  for (const signal of signals) signal.addEventListener('abort', follow);
  try {
    return await work(phase.signal);
  } catch (error) {
    phase.signal.throwIfAborted();
    throw error instanceof AppError ? error : upstreamUnreachable(error);
  } finally {
    clearTimeout(timer);
    for (const signal of signals) signal.removeEventListener('abort', follow);
  }
}

/** Stops waiting for `work` when the signal ends: a look-up of the system cannot be cancelled. */
export function rejectOnAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => {
      reject(signal.reason as Error);
    });
    work.then(resolve, reject);
  });
}
