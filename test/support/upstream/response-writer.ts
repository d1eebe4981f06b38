import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { setTimeout as rest } from 'node:timers/promises';
import type { RecordedRequest, RecordedRequestState } from './recorded-request.ts';

/** Header lines in order; a name may stand more than once. */
export type HeaderLines = Readonly<Record<string, string>> | readonly (readonly [string, string])[];

/**
 * What an answer is made with. Every method waits for what it does, and rejects once the connection is
 * closed; the upstream swallows that, so an answer need not look for a client that left.
 */
export interface ResponseWriter {
  readonly request: RecordedRequest;
  /** Aborted when the connection closes or the upstream stops. */
  readonly signal: AbortSignal;
  /** Sends status and headers at once. */
  head(status: number, headers?: HeaderLines): void;
  /** Sends a piece of the body and waits while the client does not take it. */
  write(piece: string | Uint8Array): Promise<void>;
  /** Ends the answer as HTTP wants it; the connection stays for the next request. */
  end(piece?: string | Uint8Array): Promise<void>;
  /** Writes bytes past HTTP, straight to the connection. */
  writeRaw(bytes: string | Uint8Array): Promise<void>;
  /** Ends the connection with a TCP reset. */
  reset(): Promise<void>;
  /** Ends the connection in an orderly way (FIN), whatever is still missing of the answer. */
  hangUp(): void;
  delay(ms: number): Promise<void>;
  /** Waits for `event`, or until the connection closes. */
  waitFor(event: Promise<unknown>): Promise<void>;
  /** Does nothing more until the connection closes. */
  waitForClose(): Promise<never>;
}

/** An answer of the upstream: any function of an exchange. See `answer` and `fault` for ready ones. */
export interface Answer {
  (exchange: ResponseWriter): Promise<void> | void;
  /** True: it runs as soon as the request's headers are there, and its body is left unread. */
  beforeBody?: boolean;
}

/** Before a reset, so that what was sent has left the client's network stack and is not lost with it. */
const SETTLE_MS = 20;

export interface ResponseWriterOptions {
  request: RecordedRequest;
  state: RecordedRequestState;
  response: ServerResponse;
  signal: AbortSignal;
  /** Told before this side ends the connection. */
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
    write: (piece) => waitForDrain(response.write(piece)),
    async end(piece) {
      const finished = once(response, 'finish', { signal });
      response.end(piece);
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
      await rest(SETTLE_MS, undefined, { signal });
      onHangUp();
      socket.resetAndDestroy();
    },
    hangUp() {
      onHangUp();
      socket.end();
    },
    delay: (ms) => rest(ms, undefined, { signal }),
    async waitFor(event) {
      await Promise.race([event, closed]);
    },
    waitForClose: () => closed,
  };
}

function isLines(headers: HeaderLines): headers is readonly (readonly [string, string])[] {
  return Array.isArray(headers);
}
