/**
 * A double of an upstream LLM: a real HTTP server on loopback that speaks OpenAI's protocol, records what
 * arrives and does to its clients whatever a test wants.
 *
 * ```ts
 * const upstream = await startUpstream();               // answers every chat request with a completion
 * // ... point the product at upstream.url, send a chat request ...
 * const request = await upstream.received(1);           // the 1st request, its body read
 * expect(request.key).toBe('sk-...');
 * expect(request.rawHeaders).toEqual([...]);
 *
 * upstream.reply(answer.error(429), answer.completion({ text: 'again' }));  // the next two requests
 * upstream.reply({ status: 200, body: { any: 'thing' } });                  // plain data works too
 * upstream.answerKey('sk-bad', answer.error(401));      // this key, until told otherwise
 * upstream.answerKey('sk-x', answer.error(401), answer.completion());       // refused once, then good
 * upstream.answerAll(fault.silent());                   // all others, until told otherwise
 *
 * upstream.reply(fault.resetInStream({ afterFrames: 3, cut: 'in-code-point' }));
 * const gate = Promise.withResolvers<void>();
 * upstream.reply(answer.held(2, gate.promise));         // two frames, then nothing until gate.resolve()
 *
 * // The client went away: resolves when the upstream knows, with the time (performance.now(), ms).
 * controller.abort();
 * await upstream.closed(0);
 *
 * // Back pressure: the client stopped reading. The kernels hold some MB, then nothing more is taken.
 * upstream.reply(answer.endlessStream({ frameBytes: 65_536 }));
 * const stalledAt = await upstream.stalled(0);
 *
 * await upstream.stop();                                // ends everything, also what hangs
 * ```
 *
 * An answer is any function of an {@link Exchange}; write one in the test where none of the ready ones fits.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as rest } from 'node:timers/promises';
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
  /** Keys that are good; any other gets a 401. Missing: every key is good. */
  keys?: readonly string[];
  /** How long `received`, `closed`, `sent` and `stalled` wait before they fail; 10,000 by default. */
  waitMs?: number;
}

export interface Upstream {
  /** What precedes `/chat/completions`: `http://127.0.0.1:PORT/v1`. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** All requests since the start or the last `reset`, in the order in which their headers came. */
  readonly requests: readonly RecordedRequest[];
  /** All connections since the start, those that carried no request included. */
  readonly connections: readonly UpstreamConnection[];
  readonly openConnections: number;
  /** Answers of the next requests, in order. */
  reply(...answers: (Answer | ReplyOptions)[]): void;
  /** The answer of all requests that have none of their own. */
  answerAll(one: Answer | ReplyOptions): void;
  /** Answers of one key's requests, in order; the last one stays. */
  answerKey(key: string, ...answers: (Answer | ReplyOptions)[]): void;
  /** Resets the next `count` connections as soon as they are made. */
  refuseConnections(count: number): void;
  /** Closes connections that carry no request just now, as servers do with idle ones. */
  closeIdleConnections(): void;
  /**
   * Resolves with request number `count` (from 1) once its body has been read, or its headers if its answer
   * leaves the body unread. Requests of one moment are counted in the order of their headers.
   */
  received(count: number): Promise<RecordedRequest>;
  /** Resolves when the connection of request `index` (from 0) was closed, with that time. */
  closed(index: number): Promise<number>;
  /** Resolves when the system has taken `bytes` or more for the connection of request `index`. */
  sent(index: number, bytes: number): Promise<number>;
  /** Resolves with the bytes taken so far once none was taken for `quietMs`. */
  stalled(index: number, quietMs?: number): Promise<number>;
  /** Forgets requests and script; connections stay. */
  reset(): void;
  /**
   * Ends all connections and waits, and stops listening. May be called again.
   * @throws AggregateError of what answers threw while their client was there: a fault of the test.
   */
  stop(): Promise<void>;
}

interface ReceivedRequest {
  record: RecordedRequest;
  /** Read as far as its answer wants it. */
  isReady: boolean;
}

const LOOPBACK = /^(127(\.\d{1,3}){3}|::1|localhost)$/;
const POLL_MS = 10;

/** Starts a double. The caller stops it. */
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
  // Nothing is ended by time here: whoever closes, it was the client or the script.
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
    const { signal, markClosedByUpstream: markOurs } = link;
    const exchange = createResponseWriter({ request: record, state, response, signal, onHangUp: markOurs });
    try {
      if (chosen.beforeBody !== true) await readBody(request, state);
      entry.isReady = true;
      waits.check();
      await chosen(exchange);
    } catch (error) {
      // A connection that is gone ends any answer; every other error is a fault of the test's own answer.
      if (!signal.aborted && !request.socket.destroyed) {
        markOurs();
        request.socket.destroy();
        brokenAnswers.push(error);
      }
    }
  }

  function recordAt(index: number): RecordedRequest {
    const record = entries[index]?.record;
    if (record === undefined) throw new Error(`There is no request ${index}; ${entries.length} came in.`);
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
        () => `Request ${count} (${entries.length} came in)`,
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
          throw new Error(`Only ${record.sentBytes} of ${bytes} bytes were taken.`);
        await rest(POLL_MS);
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
    if (performance.now() > deadlineMs) throw new Error(`The client still takes bytes (${bytes} so far).`);
    if (record.sentBytes !== bytes) {
      bytes = record.sentBytes;
      sinceMs = performance.now();
    }
    await rest(POLL_MS);
  }
  return bytes;
}

function toAnswer(one: Answer | ReplyOptions): Answer {
  return typeof one === 'function' ? one : answer.reply(one);
}
