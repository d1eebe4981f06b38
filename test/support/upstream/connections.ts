import type { Socket } from 'node:net';
import type { UpstreamConnection } from './recorded-request.ts';

interface TrackedConnection {
  connection: UpstreamConnection;
  /** Aborted when the connection is closed. */
  signal: AbortSignal;
  /** Call it before this side closes the connection. */
  markClosedByUpstream: () => void;
}

/** Tracks the connections of a server from `add` (its `connection` event) until they close. */
export interface ConnectionTracker {
  add: (socket: Socket) => void;
  get(socket: Socket): TrackedConnection;
  list(): readonly UpstreamConnection[];
  /** Resets the next `count` connections. */
  refuseNext: (count: number) => void;
  closeAll(): void;
}

/** @param onChange called when a connection was closed. */
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
    // The first event counts: FIN, a reset or another error, or the close of the socket.
    socket.once('end', close).once('error', close).once('close', close);
    socket.on('error', () => undefined);
    socket.once('close', () => trackedBySocket.delete(socket));
    const markClosedByUpstream = (): void => {
      closedBy = 'upstream';
    };
    trackedBySocket.set(socket, { connection, signal: closed.signal, markClosedByUpstream });
    if (refusalsLeft > 0) {
      refusalsLeft -= 1;
      markClosedByUpstream();
      socket.resetAndDestroy();
    }
  }

  return {
    add,
    get(socket) {
      const tracked = trackedBySocket.get(socket);
      if (tracked === undefined) throw new Error('A request arrived on an unknown connection.');
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
