import type { Response } from 'express';

type Socket = Response['req']['socket'];

/**
 * The open connections of clients, by the user of the last request on each. A proxy sends requests of several users on
 * one connection, so that no connection is closed during a response.
 */
export interface UserConnections {
  /** Notes that a request names the user. Can be called more than once for a request. */
  track(userId: string, response: Response): void;
  userIds(): string[];
  /** Closes the user's idle connections now, and the others after their response. */
  close(userId: string): void;
}

interface Connection {
  socket: Socket;
  userId: string;
  openResponses: Set<Response>;
  isClosing: boolean;
}

export function createUserConnections(): UserConnections {
  const connections = new Map<Socket, Connection>();

  function open(socket: Socket, userId: string): Connection {
    const connection = { socket, userId, openResponses: new Set<Response>(), isClosing: false };
    connections.set(socket, connection);
    socket.once('close', () => connections.delete(socket));
    return connection;
  }

  function closeIfIdle({ socket, openResponses, isClosing }: Connection): void {
    if (isClosing && openResponses.size === 0) socket.destroySoon();
  }

  return {
    track(userId, response) {
      const { socket } = response.req;
      if (socket.destroyed) return;
      const connection = connections.get(socket) ?? open(socket, userId);
      connection.userId = userId;
      if (connection.openResponses.has(response)) return;
      connection.openResponses.add(response);
      response.once('close', () => {
        connection.openResponses.delete(response);
        closeIfIdle(connection);
      });
    },
    userIds: () => [...new Set([...connections.values()].map(({ userId }) => userId))],
    close(userId) {
      for (const connection of connections.values()) {
        if (connection.userId !== userId) continue;
        connection.isClosing = true;
        closeIfIdle(connection);
      }
    },
  };
}
