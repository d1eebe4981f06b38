import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

/** A connection from a client. All times are `performance.now()`, in milliseconds. */
export interface UpstreamConnection {
  /** Counted from 0. */
  readonly id: number;
  readonly openedAtMs: number;
  /** Time when either side closed it; undefined while it is open. */
  closedAtMs: number | undefined;
  closedBy: 'client' | 'upstream' | undefined;
}

/** A request as received. */
export interface RecordedRequest {
  /** Counted from 0. */
  readonly index: number;
  readonly method: string;
  /** Path with query, as in the request line. */
  readonly path: string;
  readonly httpVersion: string;
  /** By lower-case name, as merged by node:http. */
  readonly headers: IncomingHttpHeaders;
  /** All header lines in order, with names as sent. */
  readonly rawHeaders: readonly (readonly [name: string, value: string])[];
  /** Value of `Authorization: Bearer` or `x-api-key`. */
  readonly key: string | undefined;
  readonly connection: UpstreamConnection;
  readonly headersAtMs: number;
  /** Empty until the body was read completely. */
  readonly body: Buffer;
  readonly bodyAtMs: number | undefined;
  /** Time when the last byte of the response was passed to the operating system. */
  readonly answeredAtMs: number | undefined;
  /** Bytes of the connection that the operating system has accepted; constant while the client does not read. */
  readonly sentBytes: number;
  /** How often a write had to wait for the client. */
  readonly pausedWrites: number;
  /** The body as JSON. */
  json(): Record<string, unknown>;
}

/** The members of a recorded request that change while it is served. */
export interface RecordedRequestState {
  body: Buffer;
  bodyAtMs: number | undefined;
  answeredAtMs: number | undefined;
  pausedWrites: number;
}

export function createRecord(
  index: number,
  request: IncomingMessage,
  connection: UpstreamConnection,
): { record: RecordedRequest; state: RecordedRequestState } {
  const socket = request.socket;
  const state: RecordedRequestState = {
    body: Buffer.alloc(0),
    bodyAtMs: undefined,
    answeredAtMs: undefined,
    pausedWrites: 0,
  };
  const record: RecordedRequest = {
    index,
    method: request.method ?? '',
    path: request.url ?? '',
    httpVersion: request.httpVersion,
    headers: request.headers,
    rawHeaders: toPairs(request.rawHeaders),
    key: findKey(request.headers),
    connection,
    headersAtMs: performance.now(),
    get body() {
      return state.body;
    },
    get bodyAtMs() {
      return state.bodyAtMs;
    },
    get answeredAtMs() {
      return state.answeredAtMs;
    },
    get sentBytes() {
      return acceptedBytes(socket);
    },
    get pausedWrites() {
      return state.pausedWrites;
    },
    json: () => JSON.parse(state.body.toString('utf8')) as Record<string, unknown>,
  };
  return { record, state };
}

/** `bytesWritten` includes bytes in the socket's own buffer, which `writableLength` counts. */
function acceptedBytes(socket: Socket): number {
  return socket.bytesWritten - socket.writableLength;
}

function findKey(headers: IncomingHttpHeaders): string | undefined {
  const bearer = /^Bearer (.*)$/i.exec(headers.authorization ?? '')?.[1];
  const other = headers['x-api-key'];
  return bearer ?? (typeof other === 'string' ? other : undefined);
}

function toPairs(raw: readonly string[]): [string, string][] {
  return raw.flatMap((name, index): [string, string][] =>
    index % 2 === 0 ? [[name, raw[index + 1] ?? '']] : [],
  );
}
