import { once } from 'node:events';
import { createServer, Socket, type AddressInfo } from 'node:net';
import pg from 'pg';

/** A pooler that lends the one connection it has to a client for the length of a transaction. */
export interface TransactionPooler {
  /** The database by way of the pooler, which asks for no password. */
  url: string;
  close(): Promise<void>;
}

/** Authentication is done; key data that name no process of the server; ready for a query. */
const WELCOME = Buffer.from('520000000800000000' + '4b0000000c0000000100000001' + '5a0000000549', 'hex');

/**
 * What the server says between transactions, such as a notice, goes to whoever had its connection last, or
 * with `toAll` to every client.
 */
export async function startTransactionPooler(target: string, toAll = false): Promise<TransactionPooler> {
  const backend = new Socket();
  const login = new pg.Client({ connectionString: target, stream: () => backend });
  login.on('error', () => undefined);
  await login.connect();
  const clients = new Set<Socket>();
  let holder: Socket | undefined;
  let done: () => void = () => undefined;
  let turn: Promise<unknown> = Promise.resolve();

  backend.removeAllListeners('data');
  eachMessage(backend, (message) => {
    const isNotice = message[0] === 0x41;
    for (const client of isNotice && toAll ? clients : [holder]) client?.write(message);
    // Ready, and in no transaction.
    if (message[0] === 0x5a && message[5] === 0x49) done();
  });

  function serve(client: Socket): void {
    let parts: Buffer[] = [];
    eachMessage(client, (message) => {
      if (message[0] === 0x58) return void client.end();
      parts.push(message);
      // A query or a Sync ends what the server answers at once.
      if (message[0] !== 0x51 && message[0] !== 0x53) return;
      const query = Buffer.concat(parts);
      parts = [];
      turn = turn.then(async () => {
        holder = client;
        const { promise, resolve } = Promise.withResolvers<undefined>();
        done = () => {
          resolve(undefined);
        };
        backend.write(query);
        await promise;
      });
    });
  }

  const server = createServer((client) => {
    clients.add(client);
    client.on('error', () => undefined);
    client.on('close', () => clients.delete(client));
    // The start-up message, which comes in one piece, tells nothing that is needed.
    client.once('data', () => {
      serve(client);
      client.write(WELCOME);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = new URL(target);
  url.hostname = '127.0.0.1';
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href,
    async close() {
      for (const client of clients) client.destroy();
      backend.destroy();
      const closed = once(server, 'close');
      server.close();
      await closed;
    },
  };
}

/** A message is a letter, the length of what follows (its own four bytes too), and its content. */
function eachMessage(socket: Socket, handle: (message: Buffer) => void): void {
  let rest = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 5 && rest.length >= 1 + rest.readUInt32BE(1)) {
      const end = 1 + rest.readUInt32BE(1);
      handle(rest.subarray(0, end));
      rest = rest.subarray(end);
    }
  });
}
