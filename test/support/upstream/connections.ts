import type { Socket } from 'node:net';
import type { Connection } from './record.ts';

interface Link {
  connection: Connection;
  /** Aborted when the connection is over. */
  signal: AbortSignal;
  /** To be called before this side ends the connection. */
  markOurs: () => void;
}

/** The connections of a server, from `add` (its `connection` event) to their end. */
export interface Connections {
  add: (socket: Socket) => void;
  of(socket: Socket): Link;
  all(): readonly Connection[];
  /** Resets the next `count` connections. */
  refuse: (count: number) => void;
  endAll(): void;
}

/** @param onChange called whenever a connection has ended. */
export function trackConnections(onChange: () => void): Connections {
  const links = new Map<Socket, Link>();
  const connections: Connection[] = [];
  let refusals = 0;

  function add(socket: Socket): void {
    const connection: Connection = {
      id: connections.length,
      openedAtMs: performance.now(),
      closedAtMs: undefined,
      closedBy: undefined,
    };
    connections.push(connection);
    const over = new AbortController();
    let endedBy: 'client' | 'upstream' = 'client';
    const close = (): void => {
      if (connection.closedAtMs !== undefined) return;
      connection.closedAtMs = performance.now();
      connection.closedBy = endedBy;
      over.abort();
      onChange();
    };
    // The first sign counts: FIN, then reset or any other error, then the end of the socket.
    socket.once('end', close).once('error', close).once('close', close);
    socket.on('error', () => undefined);
    socket.once('close', () => links.delete(socket));
    const markOurs = (): void => {
      endedBy = 'upstream';
    };
    links.set(socket, { connection, signal: over.signal, markOurs });
    if (refusals > 0) {
      refusals -= 1;
      markOurs();
      socket.resetAndDestroy();
    }
  }

  return {
    add,
    of(socket) {
      const link = links.get(socket);
      if (link === undefined) throw new Error('A request came on a connection that is not known.');
      return link;
    },
    all: () => connections,
    refuse(count) {
      refusals = count;
    },
    endAll() {
      for (const [socket, link] of links) {
        link.markOurs();
        socket.destroy();
      }
    },
  };
}
