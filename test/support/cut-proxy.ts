import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { Transform } from 'node:stream';

/** A TCP proxy on loopback that can be cut, to make a server unreachable for the app only. */
export interface CutProxy {
  url: string;
  /** Changes host and port of an address of the server to those of the proxy. */
  through(target: string): string;
  cut(): void;
  /** Keeps existing and new connections open but forwards nothing, like a network that drops packets. */
  silence(): void;
  /** Keeps existing connections open and their data back, like a network without packets for a while. */
  hold(): void;
  /** Forwards what was held back, and further data. */
  release(): void;
  /** Forwards again. Resets the connections that have lost data, because their ends cannot go on. */
  restore(): void;
  close(): Promise<void>;
}

export async function startCutProxy(target: string): Promise<CutProxy> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  const lossy = new Set<Socket>();
  let isCut = false;
  let isSilent = false;
  let held: (() => void)[] | undefined;
  const server = createServer((inbound) => {
    if (isCut) {
      inbound.destroy();
      return;
    }
    const outbound = connect(Number(port), hostname === 'localhost' ? '127.0.0.1' : hostname);
    for (const socket of [inbound, outbound]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        lossy.delete(socket);
        inbound.destroy();
        outbound.destroy();
      });
    }
    const passage = () =>
      new Transform({
        transform(chunk: Buffer, _encoding, done) {
          if (isSilent) lossy.add(inbound).add(outbound);
          if (held !== undefined) held.push(() => done(null, chunk));
          else if (lossy.has(inbound)) done();
          else done(null, chunk);
        },
      });
    inbound.pipe(passage()).pipe(outbound).pipe(passage()).pipe(inbound);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cutAll = () => {
    for (const socket of sockets) socket.destroy();
  };
  const ownPort = String((server.address() as AddressInfo).port);
  return {
    url: `http://127.0.0.1:${ownPort}`,
    through(address) {
      const url = new URL(address);
      url.hostname = '127.0.0.1';
      url.port = ownPort;
      return url.href;
    },
    cut() {
      isCut = true;
      cutAll();
    },
    silence() {
      isSilent = true;
    },
    hold() {
      held = [];
    },
    release() {
      const forwards = held ?? [];
      held = undefined;
      for (const forward of forwards) forward();
    },
    restore() {
      isCut = false;
      isSilent = false;
      for (const socket of lossy) socket.resetAndDestroy();
    },
    async close() {
      cutAll();
      const closed = once(server, 'close');
      server.close();
      await closed;
    },
  };
}
