import { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import { requestNotSent, type UpstreamConnection } from './upstream-connections.ts';
import { upstreamTimeout, upstreamUnreachable } from './deadline.ts';

export interface UpstreamRequest {
  url: URL;
  method: 'GET' | 'POST' | 'DELETE';
  headers: Record<string, string>;
  body?: Buffer | string;
  /** True for a user's address; false for addresses of the operator or of a provider's file. */
  isGuarded: boolean;
  /** Aborts the request in any phase. The request or its body then fails with the signal's reason. */
  signal: AbortSignal;
  /** From sending the request to the response's headers. */
  firstByteTimeoutMs: number;
  /** Between two chunks of the body. Time in which the reader applies back pressure does not count. */
  idleTimeoutMs: number;
  /** Called once when the connection is open and the first byte of the request is about to be sent. */
  onSend?: () => void;
}

export interface UpstreamResponse {
  /** As sent; redirects are not followed. */
  status: number;
  headers: Record<string, string | string[] | undefined>;
  /**
   * The body as sent, not decompressed. On failure the reader gets an AppError (`upstream_unreachable` when the
   * connection broke, `upstream_timeout` after the idle timeout) or the signal's reason, and chunks that were not
   * yet read are dropped. Destroying it closes the connection.
   */
  body: Readable;
  /** False when the address dialled is not public (guarded requests only). */
  isFromPublicAddress: boolean;
}

/** State of an open request, shared by its timers, its body and undici's callbacks. */
interface RequestState {
  readonly connection: UpstreamConnection;
  readonly response: PromiseWithResolvers<UpstreamResponse | undefined>;
  /** Until the headers first, then between two chunks of the body. */
  timer: NodeJS.Timeout;
  controller: Dispatcher.DispatchController | undefined;
  body: Readable | undefined;
  /** The reader applies back pressure. */
  isPaused: boolean;
  /** Chunks of the body that were received. */
  chunkCount: number;
  /** No further data is expected from the connection. */
  isFinished: boolean;
  removeAbortListener(): void;
}

/**
 * Sends one request over one connection, with undici's `dispatch`. Unlike undici's `request()` it has exact timers,
 * which stop while the reader applies back pressure.
 * @returns undefined when the connection was closed before the request was sent.
 */
export function sendUpstreamRequest(
  connection: UpstreamConnection,
  request: UpstreamRequest,
): Promise<UpstreamResponse | undefined> {
  const { url, method, headers, signal } = request;
  const onAbort = () => {
    fail(state, signal.reason);
  };
  const state: RequestState = {
    connection,
    response: Promise.withResolvers(),
    timer: setTimeout(() => {
      afterPendingData(() => {
        if (state.body === undefined) fail(state, upstreamTimeout('respond'));
      });
    }, request.firstByteTimeoutMs),
    controller: undefined,
    body: undefined,
    isPaused: false,
    chunkCount: 0,
    isFinished: false,
    removeAbortListener() {
      signal.removeEventListener('abort', onAbort);
    },
  };
  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  const path = url.pathname + url.search;
  connection.client.dispatch(
    { origin: url.origin, path, method, headers, body: request.body ?? null },
    createHandler(state, request),
  );
  return state.response.promise;
}

/**
 * Calls back when the data has been received that arrived while this process was busy. Without this, a late timer would
 * blame the upstream. (Node receives data between timers and immediates.)
 */
function afterPendingData(callback: () => void): void {
  setImmediate(callback);
}

/** Ends the request with an error; no effect when it has already ended. */
function fail(state: RequestState, error: unknown): void {
  if (!state.isFinished) state.connection.destroy();
  finish(state);
  // Neither has an effect once the response, or its body, is complete.
  if (state.body === undefined) state.removeAbortListener();
  state.body?.destroy(error as Error);
  state.response.reject(error);
}

function finish(state: RequestState): void {
  state.isFinished = true;
  clearTimeout(state.timer);
}

function createBody(state: RequestState): Readable {
  const stream = new Readable({
    read() {
      if (!state.isPaused || state.isFinished) return;
      state.isPaused = false;
      state.timer.refresh();
      state.controller?.resume();
    },
    destroy(error, done) {
      if (!state.isFinished) state.connection.destroy();
      finish(state);
      state.removeAbortListener();
      done(error);
    },
  });
  // A body that fails before it is read must not end the process. Readers still get the error.
  return stream.on('error', () => undefined);
}

function createHandler(
  state: RequestState,
  { idleTimeoutMs, onSend }: Pick<UpstreamRequest, 'idleTimeoutMs' | 'onSend'>,
): Dispatcher.DispatchHandler {
  return {
    onRequestStart(controller) {
      state.controller = controller;
      onSend?.();
    },
    onResponseStart(_controller, status, headers) {
      if (status < 200) return;
      clearTimeout(state.timer);
      state.timer = setTimeout(() => {
        const { chunkCount } = state;
        afterPendingData(() => {
          if (!state.isPaused && state.chunkCount === chunkCount)
            fail(state, upstreamTimeout('continue its response'));
        });
      }, idleTimeoutMs);
      const body = createBody(state);
      state.body = body;
      state.response.resolve({ status, headers, body, isFromPublicAddress: state.connection.isPublic });
    },
    onResponseData(_controller, chunk) {
      if (state.isFinished) return;
      state.chunkCount += 1;
      state.timer.refresh();
      if (state.body?.push(chunk) !== false) return;
      state.isPaused = true;
      state.controller?.pause();
    },
    onResponseEnd() {
      finish(state);
      state.connection.release();
      state.body?.push(null);
    },
    onResponseError(_controller, error) {
      if (error === requestNotSent && state.connection.isReused) {
        finish(state);
        state.removeAbortListener();
        state.response.resolve(undefined);
      } else fail(state, isInvalidArgument(error) ? error : upstreamUnreachable(error));
    },
  };
}

/** Headers or a path that cannot be sent: not an error of the upstream. */
function isInvalidArgument(error: Error): boolean {
  return (error as { code?: unknown }).code === 'UND_ERR_INVALID_ARG';
}
