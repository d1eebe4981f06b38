import { once } from 'node:events';
import { createServer, type AddressInfo, type Server as TcpServer, type Socket } from 'node:net';
import ssh2, { type AuthContext, type Connection, type ServerChannel } from 'ssh2';
import { parseHostKey, type HostKey } from '../../../src/lib/ssh/host-key.ts';
import { generateSshKeyPair } from '../../../src/lib/ssh/private-key.ts';
import { registerPrivateKey } from '../../support/hosts.ts';
import { afterThisTest } from './servers.ts';

/** An SSH server whose behaviour a test scripts, e.g. as a hostile server. It records what clients send. */
export interface ScriptedServer {
  host: string;
  port: number;
  hostKey: HostKey;
  /** The authentication methods that clients tried, in order. */
  attempts: string[];
}

export interface ServerBehaviour {
  /** By default every authentication is accepted. */
  authenticate?: (context: AuthContext) => void;
  /** Called for every command. */
  exec?: (channel: ServerChannel, command: string, client: Connection) => void;
  /** Called for every signal to a command. */
  onSignal?: (name: string, channel: ServerChannel) => void;
  /** Sent before the first authentication. */
  banner?: string;
  onConnection?: (client: Connection) => void;
  /** Open sessions per connection; unlimited by default. */
  maxSessions?: number;
  /** Sessions count until their connection ends, as those of programs that ignore the end of their channel. */
  keepsSessions?: boolean;
}

/** Starts a server on loopback that is closed after the test. */
export async function startScriptedServer(behaviour: ServerBehaviour = {}): Promise<ScriptedServer> {
  const { privateKey, publicKey } = generateSshKeyPair();
  registerPrivateKey(privateKey);
  const hostKey = parseHostKey(Buffer.from(publicKey.split(' ')[1] ?? '', 'base64'));
  if (hostKey === undefined) throw new Error('the generated key is not a host key');
  const attempts: string[] = [];
  const server = new ssh2.Server({ hostKeys: [privateKey], banner: behaviour.banner ?? '' }, (client) => {
    client.on('error', () => undefined);
    behaviour.onConnection?.(client);
    client.on('authentication', (context) => {
      attempts.push(context.method);
      if (behaviour.authenticate === undefined) context.accept();
      else behaviour.authenticate(context);
    });
    let sessions = 0;
    client.on('session', (accept, reject) => {
      if (sessions === (behaviour.maxSessions ?? Infinity)) {
        reject();
        return;
      }
      sessions += 1;
      const session = accept();
      if (behaviour.keepsSessions !== true) session.on('end', () => (sessions -= 1));
      session.on('exec', (acceptExec, _reject, { command }) => {
        const channel = acceptExec();
        channel.on('error', () => undefined);
        session.on('signal', (_accept, _rejectSignal, { name }) => {
          behaviour.onSignal?.(name, channel);
        });
        behaviour.exec?.(channel, command, client);
      });
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  afterThisTest(() => void server.close());
  return { host: '127.0.0.1', port: (server.address() as AddressInfo).port, hostKey, attempts };
}

/** Starts a TCP server without a valid SSH protocol. It is closed with its connections after the test. */
export async function startRawTcpServer(
  onSocket: (socket: Socket) => void,
): Promise<{ host: string; port: number }> {
  const sockets = new Set<Socket>();
  const server: TcpServer = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  afterThisTest(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
}
