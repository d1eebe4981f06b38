import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { createApp } from './app.ts';
import type { Config } from './config.ts';
import { createContext, type Context, type ContextOverrides } from './context.ts';

/** After the grace period: time for the last answers to be written out. */
const LAST_ANSWERS_MS = 5_000;
const CLOSE_IDLE_EVERY_MS = 50;

/** A server that listens. */
export interface RunningServer {
  /** The public address. */
  url: string;
  /** Refuses new requests, lets streams finish for the grace period, then closes everything. Safe to call twice. */
  stop(): Promise<void>;
}

/** How long a client may take to send a request's head; bodies are bounded by their size. */
const HEADERS_TIMEOUT_MS = 30_000;

/**
 * Starts the application and its metrics listener.
 * @throws Error when a port is taken (`EADDRINUSE`) or what it depends on is not fit; nothing is left open then.
 */
export async function startServer(config: Config, overrides: ContextOverrides = {}): Promise<RunningServer> {
  const context = createContext(config, overrides);
  const app = createServer({ headersTimeout: HEADERS_TIMEOUT_MS, requestTimeout: 0 }, createApp(context));
  const metrics = context.metrics.createServer(() => context.readiness());
  try {
    await context.start();
    await listen(app, config.port, config.host);
    await listen(metrics, config.metricsPort, config.host);
  } catch (error) {
    await close(app, metrics, context);
    throw error;
  }
  context.log.info({ event: 'listening', url: config.publicUrl, mode: config.mode }, 'ready');
  let stopping: Promise<void> | undefined;
  return { url: config.publicUrl, stop: () => (stopping ??= stop(app, metrics, context)) };
}

async function stop(app: Server, metrics: Server, context: Context): Promise<void> {
  context.log.info({ event: 'stopping' }, 'new requests are refused; streams may finish');
  await context.drain();
  await close(app, metrics, context);
  context.log.info({ event: 'stopped' }, 'stopped');
}

async function listen(server: Server, port: number, host: string): Promise<void> {
  server.listen(port, host);
  await once(server, 'listening');
}

async function close(app: Server, metrics: Server, context: Context): Promise<void> {
  await Promise.all([app, metrics].map(closeServer));
  await context.close();
}

/** Answers that are on their way are written out; connections that wait for a next request are closed. */
async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  const closed = once(server, 'close');
  server.close();
  const closeIdle = setInterval(() => {
    server.closeIdleConnections();
  }, CLOSE_IDLE_EVERY_MS);
  const giveUp = setTimeout(() => {
    server.closeAllConnections();
  }, LAST_ANSWERS_MS);
  await closed;
  clearInterval(closeIdle);
  clearTimeout(giveUp);
}
