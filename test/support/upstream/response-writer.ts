import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { RecordedRequest, RecordedRequestState } from './recorded-request.ts';
import { untilRead } from './unread-bytes.ts';

/** Header lines in order; a name may occur more than once. */
export type HeaderLines = Readonly<Record<string, string>> | readonly (readonly [string, string])[];

/**
 * Writes the response of an {@link Answer}. Every method waits until it is done and rejects when the connection is
 * closed. The upstream ignores that rejection, so an answer needs no check for a disconnected client.
 */
export interface ResponseWriter {
  readonly request: RecordedRequest;
  /** Aborted when the connection closes or the upstream stops. */
  readonly signal: AbortSignal;
  /** Sends status and headers immediately. */
  head(status: number, headers?: HeaderLines): void;
  /** Sends a part of the body and waits while the client does not read. */
  write(chunk: string | Uint8Array): Promise<void>;
  /** Ends the response correctly; the connection stays open for the next request. */
  end(chunk?: string | Uint8Array): Promise<void>;
  /** Writes bytes directly to the connection, without HTTP. */
  writeRaw(bytes: string | Uint8Array): Promise<void>;
  /** Ends the connection with a TCP reset, once the client has read what was sent. */
  reset(): Promise<void>;
  /** Closes the connection with FIN, even when the response is incomplete. */
  hangUp(): void;
  delay(ms: number): Promise<void>;
  /** Waits for `event`, or until the connection closes. */
  waitFor(event: Promise<unknown>): Promise<void>;
  /** Waits until the connection closes, then rejects. */
  waitForClose(): Promise<never>;
}

/** An answer of the upstream: a function that writes a response. `answer` and `fault` create common ones. */
export interface Answer {
  (writer: ResponseWriter): Promise<void> | void;
  /** True when the answer runs after the request's headers and leaves its body unread. */
  beforeBody?: boolean;
}

export interface ResponseWriterOptions {
  request: RecordedRequest;
  state: RecordedRequestState;
  response: ServerResponse;
  signal: AbortSignal;
  /** Called before this side closes the connection. */
  onHangUp: () => void;
}

export function createResponseWriter({
  request,
  state,
  response,
  signal,
  onHangUp,
}: ResponseWriterOptions): ResponseWriter {
  const { socket } = response.req;

  async function waitForDrain(isTaken: boolean): Promise<void> {
    if (!isTaken) {
      state.pausedWrites += 1;
      await once(response, 'drain', { signal });
    }
    signal.throwIfAborted();
  }

  const closed = new Promise<never>((_, reject) => {
    const fail = (): void => {
      reject(signal.reason as Error);
    };
    if (signal.aborted) fail();
    else signal.addEventListener('abort', fail, { once: true });
  });
  closed.catch(() => undefined);

  return {
    request,
    signal,
    head(status, headers = {}) {
      const lines: readonly (readonly [string, string])[] = isLines(headers)
        ? headers
        : Object.entries(headers);
      response.writeHead(status, lines.flat());
      response.flushHeaders();
    },
    write: (chunk) => waitForDrain(response.write(chunk)),
    async end(chunk) {
      const finished = once(response, 'finish', { signal });
      response.end(chunk);
      await finished;
      state.answeredAtMs = performance.now();
    },
    async writeRaw(bytes) {
      await new Promise<void>((resolve) =>
        socket.write(bytes, () => {
          resolve();
        }),
      );
      signal.throwIfAborted();
    },
    async reset() {
      // A reset discards what the client has not read.
      await untilRead(socket, signal);
      onHangUp();
      socket.resetAndDestroy();
    },
    hangUp() {
      onHangUp();
      socket.end();
    },
    delay: (ms) => delay(ms, undefined, { signal }),
    async waitFor(event) {
      await Promise.race([event, closed]);
    },
    waitForClose: () => closed,
  };
}

function isLines(headers: HeaderLines): headers is readonly (readonly [string, string])[] {
  return Array.isArray(headers);
}
