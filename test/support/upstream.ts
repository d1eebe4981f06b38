/**
 * A double of an upstream LLM: a real HTTP server on loopback with OpenAI's protocol. It records requests and sends the
 * responses and faults that a test chooses.
 *
 * ```ts
 * const upstream = await startUpstream();               // responds to every chat request with a completion
 * // ... point the product at upstream.url, send a chat request ...
 * const request = await upstream.received(1);           // the 1st request, its body read
 * expect(request.key).toBe('sk-...');
 * expect(request.rawHeaders).toEqual([...]);
 *
 * upstream.reply(answer.error(429), answer.completion({ text: 'again' }));  // the next two requests
 * upstream.reply({ status: 200, body: { any: 'thing' } });                  // plain data works too
 * upstream.answerKey('sk-bad', answer.error(401));      // this key, until changed
 * upstream.answerKey('sk-x', answer.error(401), answer.completion());       // refused once, then accepted
 * upstream.answerAll(fault.silent());                   // all other requests, until changed
 *
 * upstream.reply(fault.resetInStream({ afterFrames: 3, cut: 'in-code-point' }));
 * const gate = Promise.withResolvers<void>();
 * upstream.reply(answer.held(2, gate.promise));         // two frames, then nothing until gate.resolve()
 *
 * // The client disconnects: resolves when the upstream has detected it, with the time (performance.now(), ms).
 * controller.abort();
 * await upstream.closed(0);
 *
 * // Back pressure: the client stops reading. The kernels buffer some MB, then accept no more.
 * upstream.reply(answer.endlessStream({ frameBytes: 65_536 }));
 * const stalledAt = await upstream.stalled(0);
 *
 * await upstream.stop();                                // ends all connections, also stalled ones
 * ```
 *
 * An answer is any function of an {@link Exchange}; write one in the test where none of the ready ones fits.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { answer, type ReplyOptions } from './upstream/answers.ts';
import { trackConnections } from './upstream/connections.ts';
import { createResponseWriter, type Answer } from './upstream/response-writer.ts';
import {
  createRecord,
  type UpstreamConnection,
  type RecordedRequest,
  type RecordedRequestState,
} from './upstream/recorded-request.ts';
import { createScript } from './upstream/script.ts';
import { createWaits } from './upstream/waits.ts';

export { answer } from './upstream/answers.ts';
export { fault } from './upstream/faults.ts';
export { ALLOWED_HEADERS, HOSTILE_HEADERS } from './upstream/hostile-headers.ts';
export type { Answer } from './upstream/response-writer.ts';

export interface UpstreamOptions {
  /** A loopback address; 127.0.0.1 by default. */
  host?: string;
  /** 0 or missing: a free port. */
  port?: number;
  /** Accepted keys; any other key gets a 401. Missing: every key is accepted. */
  keys?: readonly string[];
  /** Time limit of `received`, `closed`, `sent` and `stalled`; 10,000 by default. */
  waitMs?: number;
}

export interface Upstream {
  /** Base URL, without `/chat/completions`: `http://127.0.0.1:PORT/v1`. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** All requests since the start or the last `reset`, in the order of their headers. */
  readonly requests: readonly RecordedRequest[];
  /** All connections since the start, also those without a request. */
  readonly connections: readonly UpstreamConnection[];
  readonly openConnections: number;
  /** Answers of the next requests, in order. */
  reply(...answers: (Answer | ReplyOptions)[]): void;
  /** Answer of all requests without a specific answer. */
  answerAll(one: Answer | ReplyOptions): void;
  /** Answers of one key's requests, in order; the last one stays. */
  answerKey(key: string, ...answers: (Answer | ReplyOptions)[]): void;
  /** Resets the next `count` connections as soon as they are made. */
  refuseConnections(count: number): void;
  /** Closes connections without an open request, as servers close idle connections. */
  closeIdleConnections(): void;
  /**
   * Resolves with request number `count` (from 1) when its body has been read, or its headers if its answer does not
   * read the body. Requests are counted in the order of their headers.
   */
  received(count: number): Promise<RecordedRequest>;
  /** Resolves with the time at which the connection of request `index` (from 0) was closed. */
  closed(index: number): Promise<number>;
  /** Resolves when the kernel has accepted `bytes` or more for the connection of request `index`. */
  sent(index: number, bytes: number): Promise<number>;
  /** Resolves with the number of accepted bytes when none was accepted for `quietMs`. */
  stalled(index: number, quietMs?: number): Promise<number>;
  /** Clears requests and script; connections stay open. */
  reset(): void;
  /**
   * Ends all connections and waits, and stops listening. Can be called again.
   * @throws AggregateError with the errors of answers whose client was still connected: errors of the test.
   */
  stop(): Promise<void>;
}

interface ReceivedRequest {
  record: RecordedRequest;
  /** The part of the request that its answer needs has been read. */
  isReady: boolean;
}

const LOOPBACK = /^(127(\.\d{1,3}){3}|::1|localhost)$/;
const POLL_MS = 10;

/** Starts a double, which the caller stops. */
export async function startUpstream(options: UpstreamOptions = {}): Promise<Upstream> {
  const host = options.host ?? '127.0.0.1';
  if (!LOOPBACK.test(host)) throw new Error('The upstream double listens on loopback only.');
  const waitMs = options.waitMs ?? 10_000;
  const waits = createWaits(waitMs);
  const script = createScript(options.keys);
  const links = trackConnections(() => {
    waits.check();
  });
  const brokenAnswers: unknown[] = [];
  let entries: ReceivedRequest[] = [];

  const server = createServer((request, response) => {
    void serve(request, response);
  });
  // No timeouts: only the client or the script closes a connection.
  server.keepAliveTimeout = 0;
  server.headersTimeout = 0;
  server.requestTimeout = 0;
  server.on('connection', links.add);

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const link = links.get(request.socket);
    const { record, state } = createRecord(entries.length, request, link.connection);
    const entry: ReceivedRequest = { record, isReady: false };
    entries.push(entry);
    const chosen = script.take(record);
    const { signal, markClosedByUpstream } = link;
    const exchange = createResponseWriter({
      request: record,
      state,
      response,
      signal,
      onHangUp: markClosedByUpstream,
    });
    try {
      if (chosen.beforeBody !== true) await readBody(request, state);
      entry.isReady = true;
      waits.check();
      await chosen(exchange);
    } catch (error) {
      // After a disconnect every answer may fail. Other errors are errors of the test's answer.
      if (!signal.aborted && !request.socket.destroyed) {
        markClosedByUpstream();
        request.socket.destroy();
        brokenAnswers.push(error);
      }
    }
  }

  function recordAt(index: number): RecordedRequest {
    const record = entries[index]?.record;
    if (record === undefined)
      throw new Error(`There is no request ${index}; ${entries.length} were received.`);
    return record;
  }

  server.listen(options.port ?? 0, host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const closed = once(server, 'close');

  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}/v1`,
    host,
    port,
    get requests() {
      return entries.map((entry) => entry.record);
    },
    get connections() {
      return links.list();
    },
    get openConnections() {
      return links.list().filter((connection) => connection.closedAtMs === undefined).length;
    },
    reply: (...answers) => {
      script.queue(answers.map(toAnswer));
    },
    answerAll: (one) => {
      script.setDefault(toAnswer(one));
    },
    answerKey: (key, ...answers) => {
      script.setKey(key, answers.map(toAnswer));
    },
    refuseConnections: links.refuseNext,
    closeIdleConnections: () => {
      server.closeIdleConnections();
    },
    received: (count) =>
      waits.waitFor(
        () => (entries[count - 1]?.isReady === true ? entries[count - 1]?.record : undefined),
        () => `Request ${count} (${entries.length} were received)`,
      ),
    async closed(index) {
      const { connection } = recordAt(index);
      return waits.waitFor(
        () => connection.closedAtMs,
        () => `The end of the connection of request ${index}`,
      );
    },
    async sent(index, bytes) {
      const record = recordAt(index);
      const deadlineMs = performance.now() + waitMs;
      while (record.sentBytes < bytes) {
        if (performance.now() > deadlineMs)
          throw new Error(`Only ${record.sentBytes} of ${bytes} bytes were accepted.`);
        await delay(POLL_MS);
      }
      return record.sentBytes;
    },
    stalled: (index, quietMs = 300) => untilQuiet(recordAt(index), quietMs, waitMs),
    reset() {
      entries = [];
      script.clear();
    },
    async stop() {
      waits.failAll('the upstream was stopped');
      server.close();
      links.closeAll();
      await closed;
      if (brokenAnswers.length > 0) throw new AggregateError(brokenAnswers.splice(0), 'An answer failed.');
    },
  };
}

async function readBody(request: IncomingMessage, state: RecordedRequestState): Promise<void> {
  const parts: Buffer[] = [];
  for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
  state.body = Buffer.concat(parts);
  state.bodyAtMs = performance.now();
}

async function untilQuiet(record: RecordedRequest, quietMs: number, waitMs: number): Promise<number> {
  const deadlineMs = performance.now() + waitMs;
  let bytes = -1;
  let sinceMs = performance.now();
  while (performance.now() - sinceMs < quietMs) {
    if (performance.now() > deadlineMs) throw new Error(`The client still accepts bytes (${bytes} so far).`);
    if (record.sentBytes !== bytes) {
      bytes = record.sentBytes;
      sinceMs = performance.now();
    }
    await delay(POLL_MS);
  }
  return bytes;
}

function toAnswer(one: Answer | ReplyOptions): Answer {
  return typeof one === 'function' ? one : answer.reply(one);
}
