import { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import { requestNotSent, type UpstreamConnection } from './upstream-connections.ts';
import { upstreamTimeout, upstreamUnreachable } from './deadline.ts';

export interface UpstreamRequest {
  url: URL;
  method: 'GET' | 'POST';
  headers: Record<string, string>;
  body?: Buffer | string;
  /** True when a user brought the address; false for addresses of the operator or of a provider's file. */
  guarded: boolean;
  /** Ends the request in any phase; its reason is what `request` or the body then fails with. */
  signal: AbortSignal;
  /** From sending the request to the headers of the answer. */
  firstByteTimeoutMs: number;
  /** Between two pieces of the body; time in which the reader holds back does not count. */
  idleTimeoutMs: number;
}

export interface UpstreamResponse {
  /** As the upstream said; redirects are not followed. */
  status: number;
  headers: Record<string, string | string[] | undefined>;
  /**
   * The body as sent, not decompressed. When it fails, the reader gets an AppError
   * (`upstream_unreachable` when the upstream broke off, `upstream_timeout` when it fell silent), or the
   * signal's reason; pieces that were not read until then are dropped. Destroying it closes the connection.
   */
  body: Readable;
  /** False when the address dialled is not public (guarded requests only). */
  fromPublicAddress: boolean;
}

/** An exchange under way: what its timers, its body and the callbacks of undici share. */
interface RequestState {
  readonly connection: UpstreamConnection;
  readonly response: PromiseWithResolvers<UpstreamResponse | undefined>;
  /** To the headers first, then between two pieces of the body. */
  timer: NodeJS.Timeout;
  controller: Dispatcher.DispatchController | undefined;
  body: Readable | undefined;
  /** The reader holds back. */
  isPaused: boolean;
  /** Nothing more is expected of the connection. */
  isFinished: boolean;
  /** Stops listening to the request's signal. */
  removeAbortListener(): void;
}

/**
 * One request and its answer over one connection, by undici's dispatch: what `request()` of undici does,
 * with exact timers that rest while the reader holds back.
 * @returns undefined when the connection had ended before anything was sent.
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
      fail(state, upstreamTimeout('answer'));
    }, request.firstByteTimeoutMs),
    controller: undefined,
    body: undefined,
    isPaused: false,
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
    createHandler(state, request.idleTimeoutMs),
  );
  return state.response.promise;
}

/** Ends the exchange as failed; harmless when it has ended before. */
function fail(state: RequestState, error: unknown): void {
  if (!state.isFinished) state.connection.destroy();
  finish(state);
  // Both without effect where the answer, or its body, is through.
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
  // A body that fails before anyone reads it must not end the process; readers get the error all the same.
  return stream.on('error', () => undefined);
}

function createHandler(state: RequestState, idleTimeoutMs: number): Dispatcher.DispatchHandler {
  return {
    onRequestStart(controller) {
      state.controller = controller;
    },
    onResponseStart(_controller, status, headers) {
      if (status < 200) return;
      clearTimeout(state.timer);
      state.timer = setTimeout(() => {
        if (!state.isPaused) fail(state, upstreamTimeout('go on with its answer'));
      }, idleTimeoutMs);
      const body = createBody(state);
      state.body = body;
      state.response.resolve({ status, headers, body, fromPublicAddress: state.connection.isPublic });
    },
    onResponseData(_controller, chunk) {
      if (state.isFinished) return;
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

/** Headers or a path that cannot be sent: no fault of the upstream. */
function isInvalidArgument(error: Error): boolean {
  return (error as { code?: unknown }).code === 'UND_ERR_INVALID_ARG';
}
