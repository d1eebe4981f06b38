import type { Readable } from 'node:stream';
import type { BodyReservation } from '../../http/body-budget.ts';
import { upstreamTimeout } from '../../lib/net/deadline.ts';
import type { UpstreamResponse } from '../../lib/net/dialer.ts';
import { waitForLargeWork } from '../../lib/async/large-work.ts';
import { isAppError } from '../../lib/errors.ts';
import { parseJson } from '../../lib/json.ts';
import { redactJson, type Redactor } from '../../lib/redact.ts';
import type { UpstreamAddress } from '../../providers/address.ts';
import type { TokenUsage } from '../../usage/service.ts';
import type { Surface } from '../surface.ts';
import {
  discardBody,
  isIdentityEncoded,
  readBoundedBody,
  upstreamMalformed,
} from '../../lib/net/upstream-body.ts';

const BYTE_ORDER_MARK = Buffer.from('\uFEFF');

/** Sizes of a successful response. */
export interface ResponseLimits {
  /** Of a response that is not streamed. */
  wholeBytes: number;
  /** Of one event of a stream. */
  eventBytes: number;
  streamBytes: number;
}

const MB = 1024 * 1024;
const PROVIDER_LIMITS: ResponseLimits = { wholeBytes: 32 * MB, eventBytes: 8 * MB, streamBytes: 1024 * MB };
/** A user can put a server there that answers with as much as is accepted. */
const USER_ADDRESS_LIMITS: ResponseLimits = { wholeBytes: 8 * MB, eventBytes: 2 * MB, streamBytes: 256 * MB };

/** The limits of responses from an address; smaller ones where a user brought it. */
export function toResponseLimits({
  isUserSupplied,
}: Pick<UpstreamAddress, 'isUserSupplied'>): ResponseLimits {
  return isUserSupplied ? USER_ADDRESS_LIMITS : PROVIDER_LIMITS;
}

/** Redacting the texts of an error takes many times as long as reading them. */
export const MAX_ERROR_BYTES = 256 * 1024;
/** The status alone is an answer, so that its body may not delay it for as long as a success may take. */
const MAX_ERROR_BODY_MS = 10_000;

interface ResponseHead {
  status: number;
  headers: UpstreamResponse['headers'];
  isPublic: boolean;
}

/** What an error's body is when it is not JSON. It completes the sentence "The provider answered 413 with ...". */
type OtherBody =
  | 'a web page'
  | 'text that is not JSON'
  | 'a compressed body'
  | 'a body over the size limit'
  | 'an incomplete body'
  | 'no body';

/** An upstream's response, classified by its status, headers and content. */
export type ClassifiedResponse =
  | (ResponseHead & { kind: 'stream'; body: Readable })
  /** A successful response of the protocol, as received. */
  | (ResponseHead & { kind: 'json'; body: Buffer; responseId?: string | undefined; usage: TokenUsage })
  /** JSON that is no successful response. The status can be 200: some providers report failures so. */
  | (ResponseHead & { kind: 'error'; value: unknown })
  | (ResponseHead & { kind: 'error'; value: undefined; otherBody: OtherBody });

export type ErrorResponse = Extract<ClassifiedResponse, { kind: 'error' }>;

export interface ClassifyOptions {
  surface: Surface;
  /** True when a stream was asked for. */
  isStreaming: boolean;
  limits: ResponseLimits;
  /** Counts the bytes as they are read, and can end the reading by an error. */
  reservation: BodyReservation;
  signal: AbortSignal;
}

/**
 * Classifies an upstream's response and reads its body unless it is a stream. A connection reset in the middle of a
 * JSON body can then still become an error in the protocol's shape. JSON, and a stream that was asked for, are recognized
 * by their content, since servers send them with other content types, or none.
 * @throws AppError `upstream_malformed` for a success that is neither JSON nor an event stream (HTML with 200,
 *   redirects, compressed or endless bodies), `upstream_unreachable` and `upstream_timeout` from reading one.
 */
export async function classifyResponse(
  response: UpstreamResponse,
  options: ClassifyOptions,
): Promise<ClassifiedResponse> {
  try {
    return response.status >= 400 ? await classifyError(response) : await classifySuccess(response, options);
  } catch (error) {
    discardBody(response.body);
    throw error;
  }
}

async function classifySuccess(
  response: UpstreamResponse,
  { surface, isStreaming, limits, reservation, signal }: ClassifyOptions,
): Promise<ClassifiedResponse> {
  const { status, headers, isFromPublicAddress: isPublic } = response;
  if (!isIdentityEncoded(headers)) {
    throw upstreamMalformed(
      'The provider compressed its response although the request asked for no encoding.',
    );
  }
  if (status !== 200)
    throw upstreamMalformed(
      `The provider responded with status ${status}, which is not valid for a ${surface.name} request.`,
    );
  const type = mediaType(headers['content-type']);
  if (type === 'text/event-stream') {
    if (surface.hasNoStreams === true)
      throw upstreamMalformed(
        `The ${surface.protocolName} protocol has no streams, but the provider sent one.`,
      );
    return { kind: 'stream', status, headers, isPublic, body: response.body };
  }
  if (isStreaming && !type.endsWith('json') && (await beginsAsStream(response.body))) {
    // From another address, nothing is shown of a service that only looks like a stream.
    return { kind: 'stream', status, headers: isPublic ? headers : {}, isPublic, body: response.body };
  }
  const body = await readBoundedBody(response.body, limits.wholeBytes, (bytes) => {
    reservation.add(bytes);
  });
  const checkedBytes = await toCheckedBytes(withoutByteOrderMark(body), { surface, reservation, signal });
  await waitForLargeWork(reservation.userId, checkedBytes.length, signal);
  const value = parseJson(checkedBytes);
  if (value === undefined)
    throw upstreamMalformed('The response of the provider is no valid JSON, or it exceeds the size limits.');
  const hasError = surface.hasError(value);
  if (surface.isResponse(value, isPublic) && !hasError)
    return {
      kind: 'json',
      status,
      headers,
      isPublic,
      body,
      usage: readUsage(surface, value),
      responseId: surface.storedResponses?.findId(value),
    };
  const isShown = isPublic || (hasError && surface.findError(value) !== undefined);
  if (!isShown) throw protocolMismatch(surface);
  if (body.length > MAX_ERROR_BYTES)
    throw upstreamMalformed('The response of the provider is no response of the protocol.');
  return { kind: 'error', status, headers, isPublic, value: parseJson(withoutByteOrderMark(body)) };
}

/** The bytes of a whole response that are parsed, see {@link Surface.withoutVectors}. */
async function toCheckedBytes(
  body: Buffer,
  { surface, reservation, signal }: Pick<ClassifyOptions, 'surface' | 'reservation' | 'signal'>,
): Promise<Buffer> {
  const steps = surface.withoutVectors?.(body);
  if (steps === undefined) return body;
  for (;;) {
    await waitForLargeWork(reservation.userId, body.length, signal);
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

function readUsage({ usage }: Surface, response: unknown): TokenUsage {
  const reader = usage.createReader();
  reader.add(response);
  return reader.read();
}

const STREAM_BEGINNINGS = ['data:', 'event:', 'id:', 'retry:', ':'].flatMap((field) => [
  Buffer.from(field),
  Buffer.from(`\uFEFF${field}`),
]);

/** True for a body whose first bytes are a field or a comment of an event stream. The bytes stay in the body. */
async function beginsAsStream(body: Readable): Promise<boolean> {
  let start = Buffer.alloc(0);
  const hasBegun = () => STREAM_BEGINNINGS.some((one) => start.subarray(0, one.length).equals(one));
  const canBegin = () => STREAM_BEGINNINGS.some((one) => one.subarray(0, start.length).equals(start));
  for await (const chunk of body.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    start = Buffer.concat([start, chunk]);
    if (hasBegun() || !canBegin()) break;
  }
  // A body that has ended by now has too few bytes for any answer.
  if (!body.readableEnded) body.unshift(start);
  return hasBegun();
}

/** Keeps the status whatever the body is: clients decide by it whether to send the request again. */
async function classifyError(response: UpstreamResponse): Promise<ClassifiedResponse> {
  const { status, headers, isFromPublicAddress: isPublic } = response;
  const toOther = (otherBody: OtherBody) =>
    ({ kind: 'error', status, headers, isPublic, value: undefined, otherBody }) as const;
  if (!isIdentityEncoded(headers)) {
    discardBody(response.body);
    return toOther('a compressed body');
  }
  const body = await readErrorBody(response.body);
  if (typeof body === 'string') return toOther(body);
  const bytes = withoutByteOrderMark(body);
  const value = parseJson(bytes);
  if (typeof value === 'object' && value !== null) return { kind: 'error', status, headers, isPublic, value };
  if (bytes.length === 0) return toOther('no body');
  const isPage = /html|xml/.test(mediaType(headers['content-type'])) || /^\s*</.test(bytes.toString());
  return toOther(isPage ? 'a web page' : 'text that is not JSON');
}

/**
 * Reads the body of an error for a bounded time.
 * @returns why it could not be read whole, when the upstream is the reason.
 * @throws the reason of the request's signal.
 */
async function readErrorBody(body: Readable): Promise<Buffer | OtherBody> {
  const timer = setTimeout(() => {
    body.destroy(upstreamTimeout('continue its response'));
  }, MAX_ERROR_BODY_MS);
  try {
    return await readBoundedBody(body, MAX_ERROR_BYTES);
  } catch (error) {
    discardBody(body);
    if (isAppError(error, 'upstream_malformed')) return 'a body over the size limit';
    if (isAppError(error, 'upstream_unreachable') || isAppError(error, 'upstream_timeout'))
      return 'an incomplete body';
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

export interface ErrorBodyOptions {
  surface: Surface;
  redact: Redactor;
}

/** The value that the client receives as JSON, and whether it contains anything that the upstream wrote. */
export interface ErrorBody {
  value: unknown;
  isUpstreamText: boolean;
}

/**
 * The body of an upstream's error. JSON keeps its members, or from a private address those of the protocol only; all
 * its strings and member names are redacted. Anything else is replaced by a sentence in the protocol's shape.
 */
export function toErrorBody(response: ErrorResponse, { surface, redact }: ErrorBodyOptions): ErrorBody {
  const { status, value, isPublic } = response;
  if (value !== undefined) {
    const shown = toShownError(value, isPublic, { surface, redact });
    if (shown !== undefined) return { value: shown, isUpstreamText: true };
  }
  // One sentence for every body from a private address: even its kind may reveal an internal service.
  const message =
    isPublic && 'otherBody' in response
      ? `The provider answered ${status} with ${response.otherBody}.`
      : `The endpoint answered ${status} without an error of the ${surface.protocolName} protocol.`;
  return { value: surface.toUpstreamError(message), isUpstreamText: isPublic };
}

/** The parsed error as it may be shown, secrets redacted; undefined when it may not be shown. */
export function toShownError(
  value: unknown,
  isPublic: boolean,
  { surface, redact }: ErrorBodyOptions,
): unknown {
  const redacted = redactJson(value, redact);
  return isPublic ? redacted : surface.findError(redacted);
}

/** The only error for an unexpected response from a private address: its content may belong to any internal service. */
export function protocolMismatch({ protocolName }: Surface) {
  return upstreamMalformed(`The endpoint does not implement the ${protocolName} protocol.`);
}

/** Without the byte order mark that some servers put before JSON. */
function withoutByteOrderMark(body: Buffer): Buffer {
  const { length } = BYTE_ORDER_MARK;
  return body.subarray(0, length).equals(BYTE_ORDER_MARK) ? body.subarray(length) : body;
}

function mediaType(header: string | string[] | undefined): string {
  const value = Array.isArray(header) ? header[0] : header;
  return (value ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
}
