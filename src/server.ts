import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createApp } from './app.ts';
import type { Config } from './config/config.ts';
import { createContext, type Context, type ContextOverrides } from './context.ts';

/** Time after the grace period for the last responses to be sent. */
const FINAL_FLUSH_MS = 5_000;

export interface RunningServer {
  /** The public address. */
  url: string;
  /** Refuses new requests, lets streams finish for the grace period, then closes everything. Safe to call twice. */
  stop(): Promise<void>;
}

/** Time limit for a request's headers, beyond the time for which its connection may be idle. */
const HEADERS_TIMEOUT_MS = 5_000;
/** Time for the rest of a request that was answered before its body was complete. */
const UNREAD_BODY_TIMEOUT_MS = 10_000;

/**
 * Starts the application and its metrics listener.
 * @throws Error when a port is in use (`EADDRINUSE`) or a dependency is not set up correctly; everything is closed then.
 */
export async function startServer(config: Config, overrides: ContextOverrides = {}): Promise<RunningServer> {
  const context = createContext(config, overrides);
  const app = createServer(createApp(context));
  const metrics = context.metrics.createOperatorServer(() => context.readiness(), config);
  for (const server of [app, metrics]) setConnectionLimits(server, config.timeouts.keepAliveMs);
  const servers = [app, metrics].map((server) => ({ server, openResponses: trackOpenResponses(server) }));
  try {
    await context.start();
    await listen(app, config.port, config.host);
    await listen(metrics, config.metricsPort, config.host);
  } catch (error) {
    await close(servers, context, 0);
    throw error;
  }
  context.log.info({ event: 'listening', url: config.publicUrl, mode: config.mode }, 'ready');
  let stopping: Promise<void> | undefined;
  return { url: config.publicUrl, stop: () => (stopping ??= stop(servers, context)) };
}

/**
 * An idle connection stays open longer than a proxy keeps it. Otherwise the proxy would send requests on connections that
 * the app is closing. The time limit for headers, which Node may count from the last request, is longer still.
 */
function setConnectionLimits(server: Server, keepAliveMs: number): void {
  server.keepAliveTimeout = keepAliveMs;
  server.headersTimeout = keepAliveMs + HEADERS_TIMEOUT_MS;
  // The time for a body depends on its pace (`http/upload-pace.ts`), which Node cannot measure.
  server.requestTimeout = 0;
  server.on('request', closeIncompleteRequest);
}

/** Closes the connection of a request that is still incomplete some time after its response. */
function closeIncompleteRequest(request: IncomingMessage, response: ServerResponse): void {
  response.once('close', () => {
    if (request.complete || request.socket.destroyed) return;
    setTimeout(() => {
      if (!request.complete) request.socket.destroy();
    }, UNREAD_BODY_TIMEOUT_MS).unref();
  });
}

/** Responses that are not yet sent completely. */
type OpenResponses = ReadonlySet<ServerResponse>;

interface TrackedServer {
  server: Server;
  openResponses: OpenResponses;
}

async function stop(servers: readonly TrackedServer[], context: Context): Promise<void> {
  context.log.info({ event: 'stopping' }, 'new requests are refused; streams may finish');
  const endMs = performance.now() + context.config.timeouts.shutdownGraceMs + FINAL_FLUSH_MS;
  await context.drain();
  await close(servers, context, endMs - performance.now());
  context.log.info({ event: 'stopped' }, 'stopped');
}

function trackOpenResponses(server: Server): OpenResponses {
  const openResponses = new Set<ServerResponse>();
  server.on('request', (_request, response: ServerResponse) => {
    openResponses.add(response);
    response.once('close', () => openResponses.delete(response));
  });
  return openResponses;
}

async function listen(server: Server, port: number, host: string): Promise<void> {
  server.listen(port, host);
  await once(server, 'listening');
}

async function close(servers: readonly TrackedServer[], context: Context, timeoutMs: number): Promise<void> {
  await Promise.all(servers.map((server) => closeServer(server, timeoutMs)));
  await context.close();
}

async function closeServer({ server, openResponses }: TrackedServer, timeoutMs: number): Promise<void> {
  if (!server.listening) return;
  // Before close(), which would cut responses that have ended but are not yet sent.
  await waitForResponses(openResponses, timeoutMs);
  const closed = once(server, 'close');
  server.close();
  // Node does not count a connection without any request as idle; browsers open such connections in advance.
  server.closeAllConnections();
  await closed;
}

/**
 * Resolves when the responses that are open now are sent or aborted, or after `timeoutMs`. Does not wait for requests
 * that have not been received completely: the client, which may be hostile, decides when that happens.
 */
async function waitForResponses(openResponses: OpenResponses, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, timeoutMs);
  });
  const pending = [...openResponses].filter((response) => response.req.complete || response.writableEnded);
  const all = pending.map((response) => new Promise((resolve) => response.once('close', resolve)));
  await Promise.race([Promise.all(all), timeout]);
  clearTimeout(timer);
}
