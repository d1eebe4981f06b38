import type { Socket } from 'node:net';
import type { UpstreamConnection } from './recorded-request.ts';

interface TrackedConnection {
  connection: UpstreamConnection;
  /** Aborted when the connection is over. */
  signal: AbortSignal;
  /** To be called before this side ends the connection. */
  markClosedByUpstream: () => void;
}

/** The connections of a server, from `add` (its `connection` event) to their end. */
export interface ConnectionTracker {
  add: (socket: Socket) => void;
  get(socket: Socket): TrackedConnection;
  list(): readonly UpstreamConnection[];
  /** Resets the next `count` connections. */
  refuseNext: (count: number) => void;
  closeAll(): void;
}

/** @param onChange called whenever a connection has ended. */
export function trackConnections(onChange: () => void): ConnectionTracker {
  const trackedBySocket = new Map<Socket, TrackedConnection>();
  const connections: UpstreamConnection[] = [];
  let refusalsLeft = 0;

  function add(socket: Socket): void {
    const connection: UpstreamConnection = {
      id: connections.length,
      openedAtMs: performance.now(),
      closedAtMs: undefined,
      closedBy: undefined,
    };
    connections.push(connection);
    const closed = new AbortController();
    let closedBy: 'client' | 'upstream' = 'client';
    const close = (): void => {
      if (connection.closedAtMs !== undefined) return;
      connection.closedAtMs = performance.now();
      connection.closedBy = closedBy;
      closed.abort();
      onChange();
    };
    // The first sign counts: FIN, then reset or any other error, then the end of the socket.
    socket.once('end', close).once('error', close).once('close', close);
    socket.on('error', () => undefined);
    socket.once('close', () => trackedBySocket.delete(socket));
    const markOurs = (): void => {
      closedBy = 'upstream';
    };
    trackedBySocket.set(socket, { connection, signal: closed.signal, markClosedByUpstream: markOurs });
    if (refusalsLeft > 0) {
      refusalsLeft -= 1;
      markOurs();
      socket.resetAndDestroy();
    }
  }

  return {
    add,
    get(socket) {
      const tracked = trackedBySocket.get(socket);
      if (tracked === undefined) throw new Error('A request came on a connection that is not known.');
      return tracked;
    },
    list: () => connections,
    refuseNext(count) {
      refusalsLeft = count;
    },
    closeAll() {
      for (const [socket, tracked] of trackedBySocket) {
        tracked.markClosedByUpstream();
        socket.destroy();
      }
    },
  };
}
