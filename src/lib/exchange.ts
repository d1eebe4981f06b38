import { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import { notSent, type Connection } from './connections.ts';
import { tooSlow, unreachable } from './deadline.ts';

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

export interface UpstreamAnswer {
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
interface Course {
  readonly connection: Connection;
  readonly answer: PromiseWithResolvers<UpstreamAnswer | undefined>;
  /** To the headers first, then between two pieces of the body. */
  timer: NodeJS.Timeout;
  controller: Dispatcher.DispatchController | undefined;
  body: Readable | undefined;
  /** The reader holds back. */
  isPaused: boolean;
  /** Nothing more is expected of the connection. */
  isOver: boolean;
  /** Stops listening to the request's signal. */
  forgetSignal(): void;
}

/**
 * One request and its answer over one connection, by undici's dispatch: what `request()` of undici does,
 * with exact timers that rest while the reader holds back.
 * @returns undefined when the connection had ended before anything was sent.
 */
export function exchange(
  connection: Connection,
  request: UpstreamRequest,
): Promise<UpstreamAnswer | undefined> {
  const { url, method, headers, signal } = request;
  const onAbort = () => {
    stop(course, signal.reason);
  };
  const course: Course = {
    connection,
    answer: Promise.withResolvers(),
    timer: setTimeout(() => {
      stop(course, tooSlow('answer'));
    }, request.firstByteTimeoutMs),
    controller: undefined,
    body: undefined,
    isPaused: false,
    isOver: false,
    forgetSignal() {
      signal.removeEventListener('abort', onAbort);
    },
  };
  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  const path = url.pathname + url.search;
  connection.client.dispatch(
    { origin: url.origin, path, method, headers, body: request.body ?? null },
    createHandler(course, request.idleTimeoutMs),
  );
  return course.answer.promise;
}

/** Ends the exchange as failed; harmless when it has ended before. */
function stop(course: Course, error: unknown): void {
  if (!course.isOver) course.connection.discard();
  finish(course);
  // Both without effect where the answer, or its body, is through.
  if (course.body === undefined) course.forgetSignal();
  course.body?.destroy(error as Error);
  course.answer.reject(error);
}

function finish(course: Course): void {
  course.isOver = true;
  clearTimeout(course.timer);
}

function createBody(course: Course): Readable {
  const stream = new Readable({
    read() {
      if (!course.isPaused || course.isOver) return;
      course.isPaused = false;
      course.timer.refresh();
      course.controller?.resume();
    },
    destroy(error, done) {
      if (!course.isOver) course.connection.discard();
      finish(course);
      course.forgetSignal();
      done(error);
    },
  });
  // A body that fails before anyone reads it must not end the process; readers get the error all the same.
  return stream.on('error', () => undefined);
}

function createHandler(course: Course, idleTimeoutMs: number): Dispatcher.DispatchHandler {
  return {
    onRequestStart(controller) {
      course.controller = controller;
    },
    onResponseStart(_controller, status, headers) {
      if (status < 200) return;
      clearTimeout(course.timer);
      course.timer = setTimeout(() => {
        if (!course.isPaused) stop(course, tooSlow('go on with its answer'));
      }, idleTimeoutMs);
      const body = createBody(course);
      course.body = body;
      course.answer.resolve({ status, headers, body, fromPublicAddress: course.connection.isPublic });
    },
    onResponseData(_controller, piece) {
      if (course.isOver) return;
      course.timer.refresh();
      if (course.body?.push(piece) !== false) return;
      course.isPaused = true;
      course.controller?.pause();
    },
    onResponseEnd() {
      finish(course);
      course.connection.release();
      course.body?.push(null);
    },
    onResponseError(_controller, error) {
      if (error === notSent && course.connection.isReused) {
        finish(course);
        course.forgetSignal();
        course.answer.resolve(undefined);
      } else stop(course, isOurMistake(error) ? error : unreachable(error));
    },
  };
}

/** Headers or a path that cannot be sent: no fault of the upstream. */
function isOurMistake(error: Error): boolean {
  return (error as { code?: unknown }).code === 'UND_ERR_INVALID_ARG';
}
