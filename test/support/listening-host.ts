import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { until } from './until.ts';

/** A host on loopback that accepts connections and sends nothing. */
export interface ListeningHost extends AsyncDisposable {
  host: string;
  port: number;
  /** Number of accepted connections. */
  connections(): number;
  /** Waits for the given number of connections. */
  waitForConnections(count?: number): Promise<unknown>;
  /** Resolves with the index (from 0) of the connection that ended first. */
  firstClosed: Promise<number>;
  closeConnections(): void;
}

export async function listeningHost(): Promise<ListeningHost> {
  const firstClosed = Promise.withResolvers<number>();
  const sockets: { destroy(): unknown }[] = [];
  const server = createServer((socket) => {
    const index = sockets.push(socket) - 1;
    // Clients may reset the connection.
    socket.on('error', () => undefined);
    socket.once('close', () => {
      firstClosed.resolve(index);
    });
    socket.resume();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const closeConnections = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    connections: () => sockets.length,
    waitForConnections: (count = 1) => until(() => sockets.length >= count),
    firstClosed: firstClosed.promise,
    closeConnections,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      closeConnections();
      await closed;
    },
  };
}
