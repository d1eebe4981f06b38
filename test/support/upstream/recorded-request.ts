import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

/** A connection that a client made. All times are `performance.now()`, in milliseconds. */
export interface UpstreamConnection {
  /** 0 for the first connection, and so on. */
  readonly id: number;
  readonly openedAtMs: number;
  /** When either side ended it; undefined while it is open. */
  closedAtMs: number | undefined;
  closedBy: 'client' | 'upstream' | undefined;
}

/** A request as it arrived. */
export interface RecordedRequest {
  /** Its place among the requests, from 0. */
  readonly index: number;
  readonly method: string;
  /** Path with query, as it stood in the request line. */
  readonly path: string;
  readonly httpVersion: string;
  /** By lower-case name, as node:http merges them. */
  readonly headers: IncomingHttpHeaders;
  /** Every header line in order, names as they were written. */
  readonly rawHeaders: readonly (readonly [name: string, value: string])[];
  /** What stood behind `Authorization: Bearer`, or in `x-api-key`. */
  readonly key: string | undefined;
  readonly connection: UpstreamConnection;
  readonly headersAtMs: number;
  /** Empty until the body was read to its end. */
  readonly body: Buffer;
  readonly bodyAtMs: number | undefined;
  /** When the last byte of the answer was handed to the system. */
  readonly answeredAtMs: number | undefined;
  /** Bytes of the connection that the system has taken so far; stands still when the client reads nothing. */
  readonly sentBytes: number;
  /** How often a write had to wait for the client. */
  readonly pausedWrites: number;
  /** The body as JSON. */
  json(): Record<string, unknown>;
}

/** The parts of a record that change while its request is served. */
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

/** `bytesWritten` counts what waits in our own buffer too; a write leaves `writableLength` once it is done. */
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
