/**
 * Stops waiting for `work` when the signal aborts. The work itself continues, e.g. for other callers, or because it
 * cannot be cancelled.
 * @throws the reason of `signal` when it aborts first.
 */
export async function rejectOnAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort);
  try {
    return await Promise.race([aborted.promise, work]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
