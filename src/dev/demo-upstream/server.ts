import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { isLoopbackHost } from '../../lib/net/addresses.ts';
import { EMBEDDING_MODEL, toEmbeddings } from './embeddings.ts';
import { createReply, TOOL_MODEL } from './reply.ts';
import { toChatFrames, toCompletion, createEnvelope, type StreamFrame } from './completion.ts';
import {
  readDemoCountRequest,
  readDemoMessagesRequest,
  toMessage,
  toMessageFrames,
  toMessagesError,
} from './messages.ts';
import { readDemoChatRequest, DemoError } from './protocol.ts';
import { countPromptTokens } from './tokens.ts';
import { createDemoResponses, type DemoResponses, type DemoResult } from './responses.ts';

export interface DemoUpstreamOptions {
  /** 0 or missing: a free port. */
  port?: number;
  /** A loopback address or `localhost`; 127.0.0.1 by default. */
  host?: string;
  /** Delay before each word of a stream; 15 by default, 0 for none. */
  delayMs?: number;
}

export interface DemoUpstream {
  /** Base URL without `/chat/completions`, e.g. `http://127.0.0.1:40123/v1`. */
  url: string;
  /** Closes open streams and stops listening. May be called again. */
  stop(): Promise<void>;
}

/** The same limit as `/v1` of the gateway, so that no body accepted there is refused here for its size. */
const MAX_BODY_BYTES = 32 * 1024 * 1024;
const METHOD_BY_PATH = new Map([
  ['/v1/chat/completions', 'POST'],
  ['/v1/messages', 'POST'],
  ['/v1/messages/count_tokens', 'POST'],
  ['/v1/responses', 'POST'],
  ['/v1/embeddings', 'POST'],
  ['/v1/models', 'GET'],
]);
/** Anthropic's protocol, with errors and headers of its own. */
const MESSAGES_PATH = /^\/v1\/messages(\/|$)/;
const BEARER = /^[Bb]earer +(demo-\S{11,})$/;

/**
 * Starts the built-in upstream of local mode. It implements protocols of OpenAI and Anthropic without a model and states so in every
 * response. It accepts keys `demo-...` with 16 or more characters.
 * @throws Error when `host` is not loopback, or the port is in use (`EADDRINUSE`).
 */
export async function startDemoUpstream(options: DemoUpstreamOptions = {}): Promise<DemoUpstream> {
  const host = options.host ?? '127.0.0.1';
  if (!isLoopbackHost(host)) throw new Error(`The demo upstream listens on loopback only, not on ${host}.`);
  const stopController = new AbortController();
  const delayMs = options.delayMs ?? 15;
  const responses = createDemoResponses();
  const server = createServer((request, response) => {
    const path = (request.url ?? '').split('?', 1)[0] ?? '';
    void serve({ request, response, path, responses, delayMs, stopSignal: stopController.signal });
  });
  server.listen(options.port ?? 0, host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const closed = once(server, 'close');
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${String(port)}/v1`,
    async stop() {
      stopController.abort();
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

interface DemoCall {
  request: IncomingMessage;
  response: ServerResponse;
  path: string;
  responses: DemoResponses;
  delayMs: number;
  stopSignal: AbortSignal;
}

/** Never rejects: without a possible error response it closes the connection. */
async function serve(call: DemoCall): Promise<void> {
  const { response } = call;
  response.setHeader('x-request-id', `req_${randomUUID().replaceAll('-', '')}`);
  try {
    await route(call);
  } catch (error) {
    if (response.headersSent || response.destroyed) {
      response.destroy();
      return;
    }
    const demoError = error instanceof DemoError ? error : new DemoError(500, 'The demo upstream failed.');
    const body = MESSAGES_PATH.test(call.path) ? toMessagesError(demoError) : demoError.body;
    sendJson(response, demoError.status, body, demoError.headers);
  }
}

async function route(call: DemoCall): Promise<void> {
  const { request, response, path } = call;
  checkHost(request);
  const method = request.method ?? '';
  const allowed = METHOD_BY_PATH.get(path);
  if (path.startsWith('/v1/responses/')) {
    const url = new URL(request.url ?? '', 'http://localhost');
    const result = call.responses.serveStored(method, url, readKey(request));
    if (result !== undefined) {
      await sendResult(call, result);
      return;
    }
  }
  if (allowed === undefined) throw new DemoError(404, `Invalid URL (${method} ${path})`);
  if (method !== allowed) {
    const message = `Not allowed to ${method} on ${path}. (HINT: Perhaps you meant to use a different HTTP method?)`;
    throw new DemoError(405, message, { code: 'method_not_supported', headers: { allow: allowed } });
  }
  const key = readKey(request);
  if (allowed === 'GET') sendJson(response, 200, modelList());
  else if (MESSAGES_PATH.test(path)) await createMessage(call, key);
  else if (path === '/v1/responses')
    await sendResult(call, call.responses.create(await readBody(request), key));
  else if (path === '/v1/embeddings') sendJson(response, 200, toEmbeddings(await readBody(request)));
  else await complete(call, key);
}

/** Protects against DNS rebinding: a web page under a name that resolves to 127.0.0.1 must get no access. */
function checkHost(request: IncomingMessage): void {
  const name = /^\[?(.*?)\]?(:\d+)?$/.exec(request.headers.host ?? '')?.[1] ?? '';
  if (!isLoopbackHost(name))
    throw new DemoError(421, 'The demo upstream is available under loopback names only.');
}

/** The client's key. The error never contains it. */
function readKey(request: IncomingMessage): string {
  const { authorization, 'x-api-key': apiKey } = request.headers;
  const header = authorization ?? (apiKey === undefined ? undefined : `Bearer ${String(apiKey)}`);
  if (header === undefined) {
    throw new DemoError(
      401,
      "You didn't provide an API key. Send one in an Authorization header: Bearer demo-...",
    );
  }
  const key = BEARER.exec(header)?.[1];
  if (key !== undefined) return key;
  throw new DemoError(
    401,
    'Incorrect API key provided. The demo takes keys that start with demo- and have 16 or more characters.',
    { code: 'invalid_api_key' },
  );
}

function modelList(): object {
  const data = ['demo', TOOL_MODEL, EMBEDDING_MODEL].map((id) => ({
    id,
    object: 'model',
    created: 1_700_000_000,
    owned_by: 'demo',
  }));
  return { object: 'list', data };
}

async function complete(call: DemoCall, key: string): Promise<void> {
  const startedAtMs = performance.now();
  const request = readDemoChatRequest(await readBody(call.request));
  const reply = createReply(request, key);
  const envelope = createEnvelope(request.model);
  const { response } = call;
  response.setHeader('openai-processing-ms', Math.round(performance.now() - startedAtMs));
  if (request.stream !== true) {
    sendJson(response, 200, toCompletion(envelope, reply));
    return;
  }
  await sendStream(call, toChatFrames(envelope, reply, request.stream_options?.include_usage === true));
}

/** Answers a call of Anthropic's protocol. */
async function createMessage(call: DemoCall, key: string): Promise<void> {
  const { request, response, path } = call;
  response.setHeader('request-id', String(response.getHeader('x-request-id')));
  if (request.headers['anthropic-version'] === undefined)
    throw new DemoError(400, 'anthropic-version: header is required');
  const body = await readBody(request);
  if (path !== '/v1/messages') {
    sendJson(response, 200, { input_tokens: countPromptTokens(readDemoCountRequest(body)) });
    return;
  }
  const { chat, isStreaming } = readDemoMessagesRequest(body);
  const message = toMessage(chat.model, createReply(chat, key));
  if (isStreaming) await sendStream(call, toMessageFrames(message));
  else sendJson(response, 200, message);
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  // Leaving the loop must not destroy the socket: the 413 is still to be sent.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) {
      throw new DemoError(413, 'The body exceeds the size limit of the demo.', {
        headers: { connection: 'close' },
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function sendResult(call: DemoCall, result: DemoResult): Promise<void> {
  if ('frames' in result) await sendStream(call, result.frames);
  else sendJson(call.response, 200, result.body);
}

/** Sends the events with back pressure. Ends when the client disconnects or the demo stops. */
async function sendStream(
  { response, delayMs, stopSignal }: DemoCall,
  frames: Iterable<StreamFrame>,
): Promise<void> {
  const clientGone = new AbortController();
  response.once('close', () => {
    clientGone.abort();
  });
  const signal = AbortSignal.any([clientGone.signal, stopSignal]);
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
  });
  for (const { text, isWord } of frames) {
    if (isWord && delayMs > 0) await delay(delayMs, undefined, { signal });
    if (!response.write(text)) await once(response, 'drain', { signal });
    signal.throwIfAborted();
  }
  response.end();
}

function sendJson(
  response: ServerResponse,
  status: number,
  body: object,
  headers: Record<string, string> = {},
): void {
  const text = JSON.stringify(body);
  response
    .writeHead(status, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
      ...headers,
    })
    .end(text);
}
