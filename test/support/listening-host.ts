import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { until } from './until.ts';

/** A host on loopback that takes connections and says nothing. */
export interface ListeningHost extends AsyncDisposable {
  host: string;
  port: number;
  /** How many have connected. */
  connections(): number;
  /** Waits until so many have connected. */
  waitForConnections(count?: number): Promise<unknown>;
  /** Which connection was over first, counted from 0 in the order in which they came. */
  firstClosed: Promise<number>;
  closeConnections(): void;
}

export async function listeningHost(): Promise<ListeningHost> {
  const gone = Promise.withResolvers<number>();
  const sockets: { destroy(): unknown }[] = [];
  const server = createServer((socket) => {
    const index = sockets.push(socket) - 1;
    // Whoever leaves may do so rudely.
    socket.on('error', () => undefined);
    socket.once('close', () => {
      gone.resolve(index);
    });
    socket.resume();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const hangUp = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    connections: () => sockets.length,
    waitForConnections: (count = 1) => until(() => sockets.length >= count),
    firstClosed: gone.promise,
    closeConnections: hangUp,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      hangUp();
      await closed;
    },
  };
}
