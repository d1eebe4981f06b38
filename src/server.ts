import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { createApp } from './app.ts';
import type { Config } from './config/config.ts';
import { createContext, type Context, type ContextOverrides } from './context.ts';

/** After the grace period: time for the last answers to be written out. */
const FINAL_FLUSH_MS = 5_000;

/** A server that listens. */
export interface RunningServer {
  /** The public address. */
  url: string;
  /** Refuses new requests, lets streams finish for the grace period, then closes everything. Safe to call twice. */
  stop(): Promise<void>;
}

/** How long a client may take to send a request's head. */
const HEADERS_TIMEOUT_MS = 30_000;
/** How long it may take to send all of it: a request that is never finished must not hold a connection for ever. */
const REQUEST_TIMEOUT_MS = 60_000;

/**
 * Starts the application and its metrics listener.
 * @throws Error when a port is taken (`EADDRINUSE`) or what it depends on is not fit; nothing is left open then.
 */
export async function startServer(config: Config, overrides: ContextOverrides = {}): Promise<RunningServer> {
  const context = createContext(config, overrides);
  const limits = { headersTimeout: HEADERS_TIMEOUT_MS, requestTimeout: REQUEST_TIMEOUT_MS };
  const app = createServer(limits, createApp(context));
  const metrics = context.metrics.createOperatorServer(() => context.readiness(), config);
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

/** Answers that are not written out yet. */
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

async function closeServer(
  { server, openResponses: answers }: TrackedServer,
  timeoutMs: number,
): Promise<void> {
  if (!server.listening) return;
  // Not before: Node's close() cuts answers that are ended but not written out yet.
  await waitForResponses(answers, timeoutMs);
  const closed = once(server, 'close');
  server.close();
  // A connection that a browser opened in advance, and that never asked anything, is not idle to Node.
  server.closeAllConnections();
  await closed;
}

/**
 * Resolves when the answers of this moment are written out or given up, or after `patienceMs`. A request that
 * has not arrived in full is not waited for: whoever sends it decides when, and may be nobody we know.
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
