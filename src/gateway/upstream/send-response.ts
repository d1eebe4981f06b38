import type { Response } from 'express';
import { endWithJson } from '../../http/json-body.ts';
import { toSseEvent, type SseWriter } from '../../http/sse.ts';
import { waitForLargeWork } from '../../lib/async/large-work.ts';
import { AppError, isAppError } from '../../lib/errors.ts';
import { discardBody, upstreamMalformed } from '../../lib/net/upstream-body.ts';
import type { Redactor } from '../../lib/redact.ts';
import type { BodyReservation } from '../../http/body-budget.ts';
import type { AnswerProgress } from '../answer-progress.ts';
import type { StreamProgress, Surface } from '../surface.ts';
import { copyResponseHeaders } from './response-headers.ts';
import { toErrorBody, type ClassifiedResponse, type ErrorResponse, type ResponseLimits } from './response.ts';
import { readSseEvents, type SseEvent } from './sse-reader.ts';
import { createStreamCheck } from './stream-events.ts';

/**
 * Of one stream, in events that are read or wait for the client. More counts for the memory of the user. Usual events are
 * smaller, so that a stream does not fail because other requests hold the memory.
 */
const UNCOUNTED_BYTES = 256 * 1024;

export interface SendOptions {
  surface: Surface;
  requestId: string;
  redact: Redactor;
  /** Follows the stream of this response. */
  progress: StreamProgress;
  /** Awaited before the last bytes of a successful response. It never rejects. */
  beforeEnd?: () => Promise<void>;
  /** Reads the events of the stream. */
  answer: Pick<AnswerProgress, 'readEvent'>;
  signal: AbortSignal;
  /** The connection is closed when the client reads nothing for this long. */
  idleTimeoutMs: number;
  limits: ResponseLimits;
  /** Memory of the user that large events take. */
  reservation: BodyReservation;
  /** The response as an event stream. It has already begun when the upstream answered late. */
  events: SseWriter;
  /** Called with the upstream's headers where they may be shown, before the response is sent. */
  onHeaders(headers: ClassifiedResponse['headers']): void;
}

/**
 * How the response ended: sent whole, or as a stream with the protocol's last event (`done`), with the error event of a
 * stream that the upstream ended too early (`incomplete`), or with any other error event (`failed`).
 */
export type SendOutcome = 'whole' | 'done' | 'incomplete' | 'failed';

type StreamResponse = Extract<ClassifiedResponse, { kind: 'stream' }>;

/**
 * Sends an upstream's response to the client: a success byte for byte, an error with its status, secrets redacted. Only
 * the headers of the allow-list are copied. Where the response has already begun as a stream, an error becomes the
 * protocol's error event.
 * @throws AppError `upstream_malformed` for a response that is no stream where the response has begun as one.
 */
export async function sendResponse(
  upstreamResponse: ClassifiedResponse,
  response: Response,
  options: SendOptions,
): Promise<SendOutcome> {
  if (upstreamResponse.kind === 'error') return sendError(upstreamResponse, response, options);
  showHeaders(upstreamResponse, response, options);
  if (upstreamResponse.kind === 'stream') return sendStream(upstreamResponse, response, options);
  if (options.events.hasBegun)
    throw upstreamMalformed(
      'The provider answered with a whole response instead of a stream. Send the request again without "stream".',
    );
  await options.beforeEnd?.();
  options.signal.throwIfAborted();
  response.status(upstreamResponse.status);
  endWithJson(response, upstreamResponse.body, options.idleTimeoutMs);
  return 'whole';
}

function sendError(upstreamResponse: ErrorResponse, response: Response, options: SendOptions): SendOutcome {
  const { value, isUpstreamText } = toErrorBody(upstreamResponse, options);
  // Headers of an internal service are as little for the client as its body.
  if (isUpstreamText) showHeaders(upstreamResponse, response, options);
  if (options.events.hasBegun) {
    options.events.end(options.surface.toErrorEvent(value));
    return 'failed';
  }
  response.status(upstreamResponse.status).setHeader('x-ops-error-source', 'upstream');
  endWithJson(response, JSON.stringify(value), options.idleTimeoutMs);
  return 'whole';
}

function showHeaders({ headers }: ClassifiedResponse, response: Response, options: SendOptions): void {
  options.onHeaders(headers);
  copyResponseHeaders(response, headers, options.redact);
}

/**
 * Sends an upstream's event stream to the client in complete events, with back pressure to the upstream while the client
 * is slow. The protocol's last event, or an error of the upstream, ends the stream. A failure of the upstream becomes an
 * error event of the protocol, never a clean end.
 * @throws the signal's reason when the client has disconnected.
 */
async function sendStream(
  upstreamResponse: StreamResponse,
  response: Response,
  options: SendOptions,
): Promise<SendOutcome> {
  const { events, requestId, surface } = options;
  events.begin();
  try {
    const outcome = await sendEvents(upstreamResponse, options);
    events.end();
    return outcome;
  } catch (error) {
    if (response.destroyed) throw error;
    const streamError = toStreamError(options.signal.aborted ? options.signal.reason : error);
    events.end(surface.toErrorEvent(surface.toError(streamError, requestId)));
    return streamError.code === 'upstream_incomplete' ? 'incomplete' : 'failed';
  } finally {
    discardBody(upstreamResponse.body);
  }
}

/**
 * @throws AppError `upstream_incomplete` when the connection ends before the answer is complete; the error of a connection
 *   that fails before; `rate_limited` or `busy` when there is no memory for a large event.
 */
async function sendEvents(upstreamResponse: StreamResponse, options: SendOptions): Promise<SendOutcome> {
  const { surface, events } = options;
  const stream = createStreamCheck({ ...options, isPublic: upstreamResponse.isPublic });
  const held = countHeldBytes(options.reservation);
  let failure: unknown;
  const body = readUntilFailure(upstreamResponse.body, (error) => {
    options.signal.throwIfAborted();
    failure = error;
  });
  for await (const received of readSseEvents(body, options.limits, held.add)) {
    await waitForLargeWork(options.reservation.userId, sumBytes(received), options.signal);
    options.signal.throwIfAborted();
    const { bytes, isDone } = stream.check(received);
    held.keepOnly(bytes.length);
    if (isDone && !stream.hasFailed()) await options.beforeEnd?.();
    if (bytes.length > 0) await events.write(bytes);
    // At most one chunk, of the next event, is left.
    held.keepOnly(0);
    if (isDone) return stream.hasFailed() ? 'failed' : 'done';
  }
  if (!stream.isFinished()) {
    if (failure !== undefined) throw toStreamError(failure);
    throw new AppError(
      'upstream_incomplete',
      'The provider ended the stream before the answer was complete. Send the request again.',
    );
  }
  if (surface.endOfStream !== null) await events.write(toSseEvent(surface.endOfStream));
  return 'done';
}

function sumBytes(events: readonly SseEvent[]): number {
  return events.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

/**
 * Reads a body to its end or to the failure of its connection. After the whole answer a failure is like the end: an error
 * would make the client send the request, and its owner pay for it, again.
 * @param onFailure what it throws ends the reading with an error.
 */
async function* readUntilFailure(
  body: AsyncIterable<Buffer>,
  onFailure: (error: unknown) => void,
): AsyncGenerator<Buffer> {
  try {
    yield* body;
  } catch (error) {
    onFailure(error);
  }
}

/** Counts the bytes of events that are read and not yet sent. */
function countHeldBytes(reservation: BodyReservation): Pick<BodyReservation, 'add' | 'keepOnly'> {
  let held = 0;
  return {
    add(bytes) {
      held += bytes;
      if (held > UNCOUNTED_BYTES) reservation.add(Math.min(bytes, held - UNCOUNTED_BYTES));
    },
    keepOnly(bytes) {
      if (held > UNCOUNTED_BYTES) reservation.keepOnly(Math.max(bytes - UNCOUNTED_BYTES, 0));
      held = bytes;
    },
  };
}

function toStreamError(error: unknown): AppError {
  if (isAppError(error)) return error;
  return new AppError(
    'upstream_unreachable',
    'The connection to the provider broke in the middle of the response.',
    { cause: error },
  );
}
