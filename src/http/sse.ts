import { once } from 'node:events';
import type { Response } from 'express';

export interface SseWriter extends Disposable {
  /** True once the status and the headers were sent, of an event stream or of another response. */
  readonly hasBegun: boolean;
  /** Sends the status 200 and the headers. No effect when the response has begun. */
  begin(): void;
  /**
   * Begins the response with `keepAlive` unless it has begun by then, since proxies close connections without traffic.
   * @param prepare called before the headers are sent.
   */
  beginAfterSilence(prepare: () => void): void;
  /**
   * Writes complete events, with back pressure while the client reads slowly. Begins the response.
   * @throws AbortError when `signal` aborts meanwhile, or when the client reads nothing for `idleTimeoutMs`, after
   *   which the connection is closed.
   */
  write(events: string | Buffer): Promise<void>;
  /** Ends the response, and closes the connection when the client reads nothing for `idleTimeoutMs`. */
  end(events?: string): void;
}

export interface SseWriterOptions {
  /** Sent after each time of silence: a comment or an event, with its blank line. */
  keepAlive: string;
  signal: AbortSignal;
  idleTimeoutMs: number;
  /** How long the response is silent at most; 15 s by default. */
  maxSilenceMs?: number;
}

/** Proxies on the way keep a connection open while something is sent on it. */
const MAX_SILENCE_MS = 15_000;

/**
 * Writes a response of server-sent events, with a comment or an event while there are no others. Nothing is sent before it begins,
 * so the response can still become another one. Disposal and the end of the response end these.
 */
export function createSseWriter(
  response: Response,
  { keepAlive, signal, idleTimeoutMs, maxSilenceMs = MAX_SILENCE_MS }: SseWriterOptions,
): SseWriter {
  let timer: NodeJS.Timeout | undefined;
  const stop = () => {
    clearInterval(timer);
  };
  const sendKeepAlive = () => {
    if (!response.writableNeedDrain) response.write(keepAlive);
  };
  function begin(): void {
    if (response.headersSent) return;
    stop();
    response.status(200).setHeader('content-type', 'text/event-stream; charset=utf-8');
    flushHeadersWithEvents(response);
    timer = setInterval(sendKeepAlive, maxSilenceMs);
  }
  response.once('close', stop);
  return {
    get hasBegun() {
      return response.headersSent;
    },
    begin,
    beginAfterSilence(prepare) {
      timer ??= setTimeout(() => {
        if (response.headersSent) return;
        prepare();
        begin();
        sendKeepAlive();
      }, maxSilenceMs);
    },
    async write(events) {
      begin();
      timer?.refresh();
      if (response.write(events)) return;
      const idleTimeout = AbortSignal.timeout(idleTimeoutMs);
      try {
        await once(response, 'drain', { signal: AbortSignal.any([signal, idleTimeout]) });
      } catch (error) {
        if (idleTimeout.aborted) response.destroy();
        throw error;
      }
    },
    end(events = '') {
      stop();
      response.end(events);
      response.setTimeout(idleTimeoutMs, () => response.destroy());
    },
    [Symbol.dispose]: stop,
  };
}

/**
 * Sends the headers together with the events that are written at once, in one system call and usually one packet: most
 * upstreams send their first event with their headers. Without such events the headers go out alone.
 */
function flushHeadersWithEvents(response: Response): void {
  const { socket } = response;
  socket?.cork();
  response.flushHeaders();
  setImmediate(() => socket?.uncork());
}

/**
 * One event with this data.
 * @param type value of the field `event`, without line ends; `''` for none.
 * @param id the client repeats it as `Last-Event-ID` when it reconnects.
 */
export function toSseEvent(data: string, type = '', id?: number): string {
  const fields = [...(type === '' ? [] : [`event: ${type}`]), ...(id === undefined ? [] : [`id: ${id}`])];
  // Searching a large text for a pattern takes long.
  const hasLineEnd = data.includes('\n') || data.includes('\r');
  const lines = (hasLineEnd ? data.split(/\r\n|\n|\r/) : [data]).map((line) => `data: ${line}`);
  return `${[...fields, ...lines].join('\n')}\n\n`;
}
