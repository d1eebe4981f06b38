import { AppError } from '../errors.ts';

/** 502 for an upstream that does not respond. The cause is logged only. */
export function upstreamUnreachable(cause: unknown): AppError {
  return new AppError('upstream_unreachable', 'The upstream could not be reached, or the connection broke.', {
    cause,
  });
}

/** 504. @param action what the upstream did not do in time, e.g. `respond`. */
export function upstreamTimeout(action: string): AppError {
  return new AppError('upstream_timeout', `The upstream took too long to ${action}.`);
}

/**
 * Runs `work` with a signal that aborts with any of `signals`, or with `upstream_timeout` after `timeoutMs`.
 * @throws AppError for every error of `work`, or the signal's reason once it has aborted.
 */
export async function withDeadline<T>(
  timeoutMs: number,
  signals: readonly AbortSignal[],
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  for (const signal of signals) signal.throwIfAborted();
  const controller = new AbortController();
  const timer = setTimeout(() => {
    controller.abort(upstreamTimeout('accept a connection'));
  }, timeoutMs);
  const forwardAbort = (event: Event) => {
    controller.abort((event.target as AbortSignal).reason);
  };
  for (const signal of signals) signal.addEventListener('abort', forwardAbort);
  try {
    return await work(controller.signal);
  } catch (error) {
    controller.signal.throwIfAborted();
    throw error instanceof AppError ? error : upstreamUnreachable(error);
  } finally {
    clearTimeout(timer);
    for (const signal of signals) signal.removeEventListener('abort', forwardAbort);
  }
}
