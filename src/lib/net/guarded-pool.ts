import { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { Client } from 'undici';
import { upstreamUnreachable } from './deadline.ts';
import type { Connector, ConnectorStream } from './tls-connector.ts';

/** HTTP/1.1 connections to one server, each for one request at a time. */
export interface GuardedPool {
  /** Takes an idle connection, or one that opens with its first request. */
  readonly acquire: () => Client;
  /** Keeps a connection for another request if it is open. */
  readonly release: (client: Client) => void;
  /** Closes a connection. Its upgraded stream stays open. */
  readonly discard: (client: Client) => void;
  /** Closes idle connections now, and the others when they become idle. */
  readonly closeWhenIdle: () => void;
  /** Closes all connections, also those being opened; open requests fail. */
  readonly close: () => Promise<void>;
}

const MAX_IDLE_CONNECTIONS = 4;
const IDLE_TIMEOUT_MS = 15_000;
const CLIENT_OPTIONS = {
  pipelining: 1,
  allowH2: false,
  maxHeaderSize: 16 * 1024,
  keepAliveTimeout: IDLE_TIMEOUT_MS,
  keepAliveMaxTimeout: IDLE_TIMEOUT_MS,
  // The caller limits the time.
  headersTimeout: 0,
  bodyTimeout: 0,
};
/** The connector decides where to connect, and each request has a `host` header. */
const UNUSED_ORIGIN = 'http://server';

/**
 * Opens connections with `connect` only. No look-up, proxy environment variable or redirect changes the destination.
 * Keeps at most four idle connections, for 15 s each.
 */
export function createGuardedPool(connect: Connector): GuardedPool {
  const closing = new AbortController();
  const clients = new Set<Client>();
  const idle: Client[] = [];
  let maxIdle = MAX_IDLE_CONNECTIONS;

  function createClient(): Client {
    const client = new Client(UNUSED_ORIGIN, {
      ...CLIENT_OPTIONS,
      connect(_options, done) {
        connect(closing.signal).then(
          (stream) => done(null, toSocketLike(stream)),
          (error: unknown) => done(error as Error, null),
        );
      },
    });
    clients.add(client);
    return client;
  }

  function discard(client: Client): void {
    clients.delete(client);
    void client.destroy();
  }

  return {
    acquire: () => idle.pop() ?? createClient(),
    release(client) {
      if (client.stats.connected && idle.length < maxIdle) idle.push(client);
      else discard(client);
    },
    discard,
    closeWhenIdle() {
      maxIdle = 0;
      idle.splice(0).forEach(discard);
    },
    async close() {
      closing.abort(upstreamUnreachable(new Error('closed')));
      await Promise.all([...clients].map((client) => client.destroy()));
    },
  };
}

/**
 * undici relies on `destroyed` and on the error of `destroy`, as sockets have them. Channels of ssh2 have neither, and
 * are released only after they have been read to the end.
 */
function toSocketLike(stream: ConnectorStream): Socket {
  if (stream instanceof Socket) return stream;
  const onData = (chunk: Buffer) => {
    if (!socket.push(chunk)) stream.pause();
  };
  const socket = new Duplex({
    allowHalfOpen: false,
    read: () => void stream.resume(),
    // A failed write also emits `error`, which may have a better explanation.
    write: (chunk, _encoding, done) => void stream.write(chunk, () => done()),
    final: (done) => void stream.end(() => done()),
    destroy(error, done) {
      stream.off('data', onData).destroy();
      done(error);
    },
  });
  stream
    .on('data', onData)
    .on('end', () => void endSocket(socket, stream))
    .on('error', (error) => void endSocket(socket, stream, error));
  return socket as Socket;
}

/** @param error of the stream; undefined at its end. */
async function endSocket(socket: Duplex, stream: ConnectorStream, error?: Error): Promise<void> {
  const reason = (await stream.findEndError?.().catch((failure: unknown) => failure as Error)) ?? error;
  if (reason === undefined) socket.push(null);
  else socket.destroy(reason);
}
