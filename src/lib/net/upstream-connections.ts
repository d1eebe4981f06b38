import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Socket } from 'node:net';
import { Client } from 'undici';
import { upstreamUnreachable, withDeadline } from './deadline.ts';
import { createDial, type DialOptions } from './upstream-sockets.ts';

/** One HTTP/1.1 connection, used by one request at a time. */
export interface UpstreamConnection {
  readonly client: Client;
  /** False when the address dialled is not public; addresses of the operator count as public. */
  readonly isPublic: boolean;
  /** True from the second request on: then the upstream may have closed it meanwhile. */
  readonly isReused: boolean;
  isOpen(): boolean;
  /** Gives the connection back once an answer has been received in full. */
  release(): void;
  /** Closes the socket at once. */
  destroy(): void;
}

export interface UpstreamConnections {
  /**
   * An idle connection to the origin of `url`, or a new one. Guarded and unguarded ones are kept apart.
   * Look-up, TCP and TLS of a new one take `connectTimeoutMs` together at most.
   * @throws AppError `upstream_unreachable`, `upstream_timeout`, `endpoint_forbidden`; or the reason of
   *   `signal`, upon which a connecting socket is closed at once.
   */
  acquire(url: URL, guarded: boolean, signal: AbortSignal): Promise<UpstreamConnection>;
  /**
   * A bare TCP connection to the host and port of `url`, which users brought; for protocols that are not HTTP, or
   * libraries that speak it themselves. The caller closes it.
   * @throws what {@link acquire} throws.
   */
  connect(url: URL, signal: AbortSignal): Promise<Socket>;
  /** Closes everything, idle or not. */
  close(): Promise<void>;
}

/**
 * A client of undici reconnects by itself when its connection ends before a request was written. Ours
 * has one connection, dialled and checked beforehand, so it gets this error: the request was not sent.
 */
export const requestNotSent = new Error('the connection ended before the request was sent');

const CLIENT_OPTIONS = {
  pipelining: 1,
  allowH2: false,
  maxHeaderSize: 16 * 1024,
  // Servers close idle connections after 5 s or more, and a request that meets the close is lost: end
  // earlier than that, and 2 s before what a `keep-alive` header promises.
  keepAliveTimeout: 4_000,
  keepAliveTimeoutThreshold: 2_000,
  keepAliveMaxTimeout: 30_000,
  // undici's timers are off by up to a second and run on while a slow reader holds the answer back.
  headersTimeout: 0,
  bodyTimeout: 0,
};

/**
 * Keeps the connections to upstreams. It connects by itself and hands undici the finished socket: undici
 * leaves a connecting socket alone when its request is aborted, and by then it has left the policy behind.
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
      // Closed between the socket's last event and here, when nobody was listening.
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

/** Connections that wait for their next request; the one used last goes first. */
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
        // undici lets one turn of the event loop pass before it uses a connection again, which may be the
        // rest of this one. With ours, what has arrived by now is read first: a close costs no request.
        await nextTurn();
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
      // undici decides right after its last callback whether the connection lives on.
      queueMicrotask(() => {
        if (!socket.destroyed) onReleased(connection);
      });
    },
    destroy() {
      // With an error, or undici takes the end of the socket for the end of a body without length.
      socket.destroy(new Error('discarded'));
    },
  };
  return connection;
}

/** undici's connector for a socket that is connected already; it serves once. */
function createSingleUseConnector(socket: Socket) {
  let isUsed = false;
  return (_options: unknown, callback: (...result: [null, Socket] | [Error, null]) => void) => {
    const isFirst = !isUsed;
    isUsed = true;
    // Later, since undici ignores what happens while it is still calling.
    queueMicrotask(() => {
      if (isFirst && !socket.destroyed) callback(null, socket);
      else callback(requestNotSent, null);
    });
  };
}
