import type { Duplex, Readable } from 'node:stream';
import type { Client, Dispatcher } from 'undici';
import { rejectOnAbort } from '../async/reject-on-abort.ts';
import { AppError } from '../errors.ts';
import { upstreamUnreachable, withDeadline } from './deadline.ts';
import { createGuardedPool, type GuardedPool } from './guarded-pool.ts';
import type { Connector } from './tls-connector.ts';

/** A request to an untrusted server, with a time limit. */
export interface BoundedRequest {
  method: 'GET' | 'POST' | 'DELETE';
  /** Path and query. The caller percent-encodes parts that come from outside. */
  path: string;
  /** Sent as JSON. */
  body?: unknown;
  /** Time until the response is complete (`requestText`), or until its headers are received. */
  timeoutMs: number;
  signal?: AbortSignal;
}

export interface BoundedResponse {
  status: number;
  body: Readable;
}

/** HTTP client of one server. It follows no redirects. */
export interface BoundedHttpClient extends Pick<GuardedPool, 'closeWhenIdle' | 'close'> {
  /**
   * Reads the whole response.
   * @throws AppError `upstream_malformed` for a body over `maxBytes`, and as {@link requestStream}.
   */
  requestText(request: BoundedRequest & { maxBytes: number }): Promise<{ status: number; text: string }>;
  /**
   * Resolves when the headers are received. The caller reads or destroys the body.
   * @throws AppError `upstream_unreachable`, `upstream_timeout`, what the connector throws, or the signal's reason.
   */
  requestStream(request: BoundedRequest): Promise<BoundedResponse>;
  /**
   * Requests the raw connection (`Upgrade: tcp`).
   * @returns the connection, or the response of a server that refuses; the connection is closed after it.
   */
  upgrade(request: BoundedRequest): Promise<Duplex | BoundedResponse>;
}

/**
 * Connects at the first request, with `connect` only.
 * @param headers sent with every request. `host` does not decide where to connect.
 */
export function createBoundedHttpClient(
  connect: Connector,
  headers: Readonly<Record<string, string>> & { host: string },
): BoundedHttpClient {
  const { acquire, release, discard, ...lifetime } = createGuardedPool(connect);

  async function send(
    request: BoundedRequest,
    signal: AbortSignal,
    onUpgrade?: (stream: Duplex) => void,
  ): Promise<BoundedResponse> {
    const connection = acquire();
    const options = { ...toRequestOptions(request, headers), signal };
    const response =
      onUpgrade === undefined
        ? connection.request(options)
        : requestUpgrade(connection, options, (stream) => {
            discard(connection);
            onUpgrade(stream);
          });
    try {
      // undici ignores the signal while it waits for the connection.
      const { statusCode, body } = await rejectOnAbort(response, signal);
      // Stays attached: the reader of the body handles later errors of the connection.
      body.on('error', () => undefined).once('close', () => release(connection));
      return { status: statusCode, body };
    } catch (error) {
      discard(connection);
      throw error;
    }
  }

  return {
    ...lifetime,
    async requestText(request) {
      return await withRequestTimeout(request, async (signal) => {
        const { status, body } = await send(request, signal);
        return { status, text: await readText(body, request.maxBytes, signal) };
      });
    },
    async requestStream(request) {
      return await withRequestTimeout(request, (signal) => send(request, signal));
    },
    async upgrade(request) {
      return await withRequestTimeout(request, async (signal) => {
        const upgraded = Promise.withResolvers<Duplex>();
        return await Promise.race([upgraded.promise, send(request, signal, upgraded.resolve)]);
      });
    },
  };
}

function toRequestOptions({ method, path, body }: BoundedRequest, headers: Record<string, string>) {
  if (body === undefined) return { method, path, headers };
  const contentHeaders = { ...headers, 'content-type': 'application/json' };
  return { method, path, headers: contentHeaders, body: JSON.stringify(body) };
}

/** undici's own `upgrade` drops the response of a server that refuses. Without a refusal the result stays pending. */
function requestUpgrade(
  client: Client,
  options: Dispatcher.RequestOptions,
  onUpgrade: (stream: Duplex) => void,
): Promise<Dispatcher.ResponseData> {
  const onRequestUpgrade: Dispatcher.DispatchHandler['onRequestUpgrade'] = (
    _controller,
    _status,
    _headers,
    stream,
  ) =>
    // Stays attached, as above.
    onUpgrade(stream.on('error', () => undefined));
  return client
    .compose(
      (dispatch) => (request, handler) => dispatch(request, Object.assign(handler, { onRequestUpgrade })),
    )
    .request({ ...options, upgrade: 'tcp' });
}

function withRequestTimeout<T>(
  request: BoundedRequest,
  work: (phase: AbortSignal) => Promise<T>,
): Promise<T> {
  return withDeadline(request.timeoutMs, request.signal === undefined ? [] : [request.signal], work);
}

/**
 * Reads a body to its end.
 * @throws AppError `upstream_malformed` for more than `maxBytes`, `upstream_unreachable` when the connection breaks
 *   or the signal aborts.
 */
export async function readText(body: Readable, maxBytes: number, signal: AbortSignal): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of readChunks(body, maxBytes, signal)) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

export interface LineLimits {
  maxLineBytes: number;
  /** Of all lines together; unlimited by default. */
  maxBytes?: number;
  /** Drops a last line without a line break, which may be incomplete. */
  skipUnterminated?: boolean;
}

/** Reads lines, without their line breaks. @throws as {@link readText}. */
export async function* readLines(
  body: Readable,
  { maxLineBytes, maxBytes = Infinity, skipUnterminated = false }: LineLimits,
  signal: AbortSignal,
): AsyncGenerator<string, void> {
  let rest = Buffer.alloc(0);
  for await (const chunk of readChunks(body, maxBytes, signal)) {
    rest = Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      yield rest.subarray(0, end).toString();
      rest = rest.subarray(end + 1);
    }
    if (rest.length > maxLineBytes) throw responseTooLarge();
  }
  if (rest.length > 0 && !skipUnterminated) yield rest.toString();
}

async function* readChunks(
  body: Readable,
  maxBytes: number,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void> {
  const onAbort = () => void body.destroy(signal.reason as Error);
  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  let total = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      total += chunk.length;
      if (total > maxBytes) throw responseTooLarge();
      yield chunk;
    }
  } catch (error) {
    throw error instanceof AppError ? error : upstreamUnreachable(error);
  } finally {
    signal.removeEventListener('abort', onAbort);
    if (!body.readableEnded) body.destroy();
  }
}

function responseTooLarge(): AppError {
  return new AppError('upstream_malformed', 'The response exceeds the size limit.');
}
