import { setImmediate as nextEventLoopTurn } from 'node:timers/promises';
import type { Socket } from 'node:net';
import { Client } from 'undici';
import { upstreamUnreachable, withDeadline } from './deadline.ts';
import { createDial, type DialOptions } from './upstream-sockets.ts';

/** One HTTP/1.1 connection, used by one request at a time. */
export interface UpstreamConnection {
  readonly client: Client;
  /** False when the dialled address is not public. The operator's addresses count as public. */
  readonly isPublic: boolean;
  /** True from the second request on: the upstream may have closed the connection in between. */
  readonly isReused: boolean;
  isOpen(): boolean;
  /** Returns the connection once a response has been received completely. */
  release(): void;
  /** Closes the socket at once. */
  destroy(): void;
}

export interface UpstreamConnections {
  /**
   * Takes an idle connection to the origin of `url`, or opens one. Guarded and unguarded ones are separate.
   * DNS lookup, TCP and TLS of a new one take at most `connectTimeoutMs` together.
   * @throws AppError `upstream_unreachable`, `upstream_timeout`, `endpoint_forbidden`; or the reason of
   *   `signal`, which closes a connecting socket at once.
   */
  acquire(url: URL, guarded: boolean, signal: AbortSignal): Promise<UpstreamConnection>;
  /**
   * Opens a raw TCP connection to the host and port of a user's `url`, for protocols other than HTTP and for
   * libraries with their own HTTP client. The caller closes it.
   * @throws as {@link acquire}.
   */
  connect(url: URL, signal: AbortSignal): Promise<Socket>;
  /** Closes all connections, idle or not. */
  close(): Promise<void>;
}

/**
 * An undici client reconnects when its connection ends before a request was written. Our clients have one
 * connection, dialled and checked before, so they get this error: the request was not sent.
 */
export const requestNotSent = new Error('the connection ended before the request was sent');

const CLIENT_OPTIONS = {
  pipelining: 1,
  allowH2: false,
  maxHeaderSize: 16 * 1024,
  // Servers close idle connections after 5 s or more, and a request sent during the close is lost. Close earlier,
  // and 2 s before the time of a `keep-alive` header.
  keepAliveTimeout: 4_000,
  keepAliveTimeoutThreshold: 2_000,
  keepAliveMaxTimeout: 30_000,
  // undici's timers are inexact by up to a second and continue while a slow reader applies back pressure.
  headersTimeout: 0,
  bodyTimeout: 0,
};

/**
 * Keeps the connections to upstreams. It opens the sockets itself and passes connected ones to undici: undici does
 * not close a connecting socket when its request is aborted, and does not apply the egress policy.
 */
export function createUpstreamConnections(options: DialOptions): UpstreamConnections {
  const dial = createDial(options);
  const idleConnections = createIdleConnections();
  const openClients = new Set<Client>();
  const rawSockets = new Set<Socket>();
  const closing = new AbortController();

  function track(key: string, url: URL, socket: Socket, isPublic: boolean): UpstreamConnection {
    const connection = createUpstreamConnection(url, socket, isPublic, (released) => {
      idleConnections.add(key, released);
    });
    openClients.add(connection.client);
    socket.once('close', () => {
      openClients.delete(connection.client);
      idleConnections.drop(key, connection);
    });
    return connection;
  }

  return {
    async acquire(url, guarded, signal) {
      const key = `${guarded ? 'guarded' : 'operator'} ${url.origin}`;
      const reused = await idleConnections.take(key);
      if (reused !== undefined) return reused;
      const [socket, isPublic] = await withDeadline(
        options.connectTimeoutMs,
        [signal, closing.signal],
        (phase) => dial(url, guarded, phase),
      );
      // close() may have been called after the socket's last event.
      if (closing.signal.aborted) socket.destroy();
      return track(key, url, socket, isPublic);
    },
    async connect(url, signal) {
      const [socket] = await withDeadline(options.connectTimeoutMs, [signal, closing.signal], (phase) =>
        dial(url, true, phase),
      );
      if (closing.signal.aborted) socket.destroy();
      rawSockets.add(socket);
      socket.once('close', () => rawSockets.delete(socket));
      return socket;
    },
    async close() {
      closing.abort(upstreamUnreachable(new Error('closed')));
      for (const socket of rawSockets) socket.destroy();
      await Promise.all([...openClients].map((client) => client.destroy()));
    },
  };
}

/** Idle connections by origin; the one used last is taken first. */
function createIdleConnections() {
  const byKey = new Map<string, UpstreamConnection[]>();
  return {
    add(key: string, connection: UpstreamConnection): void {
      const others = byKey.get(key);
      if (others === undefined) byKey.set(key, [connection]);
      else others.push(connection);
    },
    drop(key: string, connection: UpstreamConnection): void {
      const others = byKey.get(key)?.filter((other) => other !== connection) ?? [];
      if (others.length > 0) byKey.set(key, others);
      else byKey.delete(key);
    },
    async take(key: string): Promise<UpstreamConnection | undefined> {
      for (
        let connection = byKey.get(key)?.pop();
        connection !== undefined;
        connection = byKey.get(key)?.pop()
      ) {
        // undici waits one turn of the event loop before it reuses a connection, which may be the current one. With a
        // full turn, data that has already arrived is read first, so that a close by the upstream loses no request.
        await nextEventLoopTurn();
        if (connection.isOpen()) return connection;
      }
      return undefined;
    },
  };
}

function createUpstreamConnection(
  url: URL,
  socket: Socket,
  isPublic: boolean,
  onReleased: (connection: UpstreamConnection) => void,
): UpstreamConnection {
  const connection = {
    client: new Client(url.origin, { ...CLIENT_OPTIONS, connect: createSingleUseConnector(socket) }),
    isPublic,
    isReused: false,
    isOpen: () => !socket.destroyed,
    release() {
      connection.isReused = true;
      // undici decides right after its last callback whether it keeps the connection.
      queueMicrotask(() => {
        if (!socket.destroyed) onReleased(connection);
      });
    },
    destroy() {
      // With an error: otherwise undici treats the end of the socket as the end of a body without length.
      socket.destroy(new Error('discarded'));
    },
  };
  return connection;
}

/** An undici connector for a socket that is already connected; works once. */
function createSingleUseConnector(socket: Socket) {
  let isUsed = false;
  return (_options: unknown, callback: (...result: [null, Socket] | [Error, null]) => void) => {
    const isFirst = !isUsed;
    isUsed = true;
    // Deferred, because undici ignores a callback during its own call.
    queueMicrotask(() => {
      if (isFirst && !socket.destroyed) callback(null, socket);
      else callback(requestNotSent, null);
    });
  };
}
