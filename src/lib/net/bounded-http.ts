import type { ClientRequest, IncomingMessage } from 'node:http';
import { request as startRequest, type Agent } from 'node:https';
import type { Duplex, Readable } from 'node:stream';
import type { HostAndPort } from './addresses.ts';
import { upstreamUnreachable, withDeadline } from './deadline.ts';
import { AppError } from '../errors.ts';

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

export interface BoundedHttpClient {
  /**
   * Reads the whole response.
   * @throws AppError `upstream_malformed` for a body over `maxBytes`, and as {@link requestStream}.
   */
  requestText(request: BoundedRequest & { maxBytes: number }): Promise<{ status: number; text: string }>;
  /**
   * Resolves when the headers are received. The caller reads or destroys the body.
   * @throws AppError `upstream_unreachable`, `upstream_timeout`, what the agent's connector throws, or the
   *   signal's reason.
   */
  requestStream(request: BoundedRequest): Promise<{ status: number; body: Readable }>;
  /**
   * Requests the raw connection (`Upgrade: tcp`).
   * @returns the connection, or the response of a server that refuses; the connection is closed after it.
   */
  upgrade(request: BoundedRequest): Promise<Duplex | { status: number; body: Readable }>;
}

const MAX_HEADER_BYTES = 16 * 1024;

/** @param authority sent as `Host`. The agent alone decides where to connect. */
export function createBoundedHttpClient(agent: Agent, authority: HostAndPort): BoundedHttpClient {
  function start({ method, path, body }: BoundedRequest, headers: Record<string, string>): ClientRequest {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const request = startRequest({
      ...authority,
      agent,
      method,
      path,
      headers: {
        ...headers,
        ...(text === undefined ? {} : { 'content-type': 'application/json' }),
        ...(method === 'POST' ? { 'content-length': Buffer.byteLength(text ?? '') } : {}),
      },
      maxHeaderSize: MAX_HEADER_BYTES,
    });
    // Stays attached: the reader of the body handles later errors of the connection.
    return request.on('error', () => undefined).end(text);
  }

  const client: BoundedHttpClient = {
    async requestText(request) {
      return await withRequestTimeout(request, async (signal) => {
        const { status, body } = await client.requestStream({ ...request, signal: signal });
        return { status, text: await readText(body, request.maxBytes, signal) };
      });
    },
    async requestStream(request) {
      return await withRequestTimeout(request, (signal) => waitForResponse(start(request, {}), signal));
    },
    async upgrade(request) {
      const headers = { connection: 'Upgrade', upgrade: 'tcp' };
      return await withRequestTimeout(request, (signal) => waitForUpgrade(start(request, headers), signal));
    },
  };
  return client;
}

function withRequestTimeout<T>(
  request: BoundedRequest,
  work: (phase: AbortSignal) => Promise<T>,
): Promise<T> {
  return withDeadline(request.timeoutMs, request.signal === undefined ? [] : [request.signal], work);
}

interface HttpResponse {
  status: number;
  body: Readable;
}

function waitForResponse(request: ClientRequest, signal: AbortSignal): Promise<HttpResponse> {
  const { promise, resolve, reject } = Promise.withResolvers<HttpResponse>();
  request.once('response', (response) => resolve(toHttpResponse(response)));
  rejectOnFailure(request, signal, reject);
  return promise;
}

function waitForUpgrade(request: ClientRequest, signal: AbortSignal): Promise<Duplex | HttpResponse> {
  const { promise, resolve, reject } = Promise.withResolvers<Duplex | HttpResponse>();
  request.once('upgrade', (_response, socket: Duplex, head: Buffer) => {
    // Stays attached, as above.
    socket.on('error', () => undefined);
    if (head.length > 0) socket.unshift(head);
    resolve(socket);
  });
  request.once('response', (response) => resolve(toHttpResponse(response)));
  rejectOnFailure(request, signal, reject);
  return promise;
}

function toHttpResponse(response: IncomingMessage): HttpResponse {
  return { status: response.statusCode ?? 0, body: response.on('error', () => undefined) };
}

function rejectOnFailure(request: ClientRequest, signal: AbortSignal, reject: (reason: Error) => void): void {
  const onAbort = () => {
    reject(signal.reason as Error);
    request.destroy();
  };
  request.once('error', reject);
  request.once('close', () => {
    signal.removeEventListener('abort', onAbort);
    reject(upstreamUnreachable(new Error('closed before the response')));
  });
  signal.addEventListener('abort', onAbort);
}

/**
 * Reads a body to its end.
 * @throws AppError `upstream_malformed` for more than `maxBytes`, `upstream_unreachable` when the connection breaks.
 */
export async function readText(body: Readable, maxBytes: number, signal: AbortSignal): Promise<string> {
  const chunks: Buffer[] = [];
  let total = 0;
  const onAbort = () => {
    body.destroy(signal.reason as Error);
  };
  signal.addEventListener('abort', onAbort);
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      total += chunk.length;
      if (total > maxBytes) throw responseTooLarge();
      chunks.push(chunk);
    }
  } catch (error) {
    throw error instanceof AppError ? error : upstreamUnreachable(error);
  } finally {
    signal.removeEventListener('abort', onAbort);
    if (!body.readableEnded) body.destroy();
  }
  return Buffer.concat(chunks).toString();
}

/** Reads lines of at most `maxLineBytes` each. @throws as {@link readText}. */
export async function* readLines(body: Readable, maxLineBytes: number): AsyncGenerator<string, void> {
  let rest = Buffer.alloc(0);
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      rest = Buffer.concat([rest, chunk]);
      for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
        yield rest.subarray(0, end).toString();
        rest = rest.subarray(end + 1);
      }
      if (rest.length > maxLineBytes) throw responseTooLarge();
    }
  } catch (error) {
    throw error instanceof AppError ? error : upstreamUnreachable(error);
  } finally {
    if (!body.readableEnded) body.destroy();
  }
  if (rest.length > 0) yield rest.toString();
}

function responseTooLarge(): AppError {
  return new AppError('upstream_malformed', 'The response exceeds the size limit.');
}
