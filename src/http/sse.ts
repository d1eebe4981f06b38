import { once } from 'node:events';
import type { Response } from 'express';

export interface SseWriter extends Disposable {
  /**
   * Writes complete events, with back pressure while the client reads slowly.
   * @throws AbortError when `signal` aborts meanwhile, or when the client reads nothing for `idleTimeoutMs`, after
   *   which the connection is closed.
   */
  write(events: string | Buffer): Promise<void>;
}

export interface SseWriterOptions {
  /** Text of the comment that is sent after 15 s without an event. */
  idleComment: string;
  signal: AbortSignal;
  idleTimeoutMs: number;
}

/** Proxies on the way keep a connection open while something is sent on it. */
const COMMENT_INTERVAL_MS = 15_000;

/**
 * Begins a response of server-sent events: writes the headers, and comments while there are no events. Disposal ends
 * the comments; the caller ends the response.
 */
export function createSseWriter(
  response: Response,
  { idleComment, signal, idleTimeoutMs }: SseWriterOptions,
): SseWriter {
  response.status(200).setHeader('content-type', 'text/event-stream; charset=utf-8');
  response.flushHeaders();
  const comments = setInterval(() => {
    if (!response.writableNeedDrain) response.write(`: ${idleComment}\n\n`);
  }, COMMENT_INTERVAL_MS);
  return {
    async write(events) {
      comments.refresh();
      if (response.write(events)) return;
      const idleTimeout = AbortSignal.timeout(idleTimeoutMs);
      try {
        await once(response, 'drain', { signal: AbortSignal.any([signal, idleTimeout]) });
      } catch (error) {
        if (idleTimeout.aborted) response.destroy();
        throw error;
      }
    },
    [Symbol.dispose]: () => {
      clearInterval(comments);
    },
  };
}

/**
 * One event with this data.
 * @param type value of the field `event`, without line ends; `''` for none.
 * @param id the client repeats it as `Last-Event-ID` when it reconnects.
 */
export function toSseEvent(data: string, type = '', id?: number): string {
  const fields = [...(type === '' ? [] : [`event: ${type}`]), ...(id === undefined ? [] : [`id: ${id}`])];
  const lines = data.split(/\r\n|\n|\r/).map((line) => `data: ${line}`);
  return `${[...fields, ...lines].join('\n')}\n\n`;
}
