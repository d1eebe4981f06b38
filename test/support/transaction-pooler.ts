import { once } from 'node:events';
import { createServer, Socket, type AddressInfo } from 'node:net';
import pg from 'pg';

/** A pooler with one connection, which it lends to a client for each transaction. */
export interface TransactionPooler {
  /** Address of the database through the pooler, which requires no password. */
  url: string;
  close(): Promise<void>;
}

/** AuthenticationOk; BackendKeyData with an invalid process id; ReadyForQuery. */
const WELCOME = Buffer.from('520000000800000000' + '4b0000000c0000000100000001' + '5a0000000549', 'hex');

/**
 * Messages of the server between transactions, such as notifications, go to the client that used the connection last,
 * or with `toAll` to every client.
 */
export async function startTransactionPooler(target: string, toAll = false): Promise<TransactionPooler> {
  const backend = new Socket();
  const login = new pg.Client({ connectionString: target, stream: () => backend });
  login.on('error', () => undefined);
  await login.connect();
  const clients = new Set<Socket>();
  let holder: Socket | undefined;
  let done: () => void = () => undefined;
  let queue: Promise<unknown> = Promise.resolve();

  backend.removeAllListeners('data');
  eachMessage(backend, (message) => {
    const isNotice = message[0] === 0x41;
    for (const client of isNotice && toAll ? clients : [holder]) client?.write(message);
    // ReadyForQuery outside a transaction.
    if (message[0] === 0x5a && message[5] === 0x49) done();
  });

  function serve(client: Socket): void {
    let parts: Buffer[] = [];
    eachMessage(client, (message) => {
      if (message[0] === 0x58) return void client.end();
      parts.push(message);
      // The server responds to a group of messages that ends with Query or Sync.
      if (message[0] !== 0x51 && message[0] !== 0x53) return;
      const query = Buffer.concat(parts);
      parts = [];
      queue = queue.then(async () => {
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
    // The start-up message arrives in one chunk and is ignored.
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

/** A message is a type byte, a length (including its own four bytes), and content. */
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
