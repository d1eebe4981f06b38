import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { ClusterAccess } from '../../../src/runners/kubernetes/kubeconfig.ts';
import { certificate } from '../../support/certificate.ts';

/**
 * A server that a user may name as a cluster. Its behaviour is defined by a test and differs from a real API
 * server.
 */
export interface HostileCluster {
  access: ClusterAccess;
  /** Method and URL of each request, in order. */
  requests: string[];
  respond: (request: IncomingMessage, response: ServerResponse) => void;
  /** Handles an upgrade. The socket is the server's own. */
  onUpgrade: (socket: Duplex, request: IncomingMessage) => void;
  close: () => Promise<void>;
}

export async function startHostileCluster(): Promise<HostileCluster> {
  const sockets = new Set<Socket>();
  const server = createServer({ key: certificate.key, cert: certificate.cert });
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const hostile: HostileCluster = {
    access: {
      server: new URL(`https://127.0.0.1:${port}`),
      ca: certificate.cert,
      namespace: 'jobs',
      token: 'a-token',
      client: null,
    },
    requests: [],
    respond: (_request, response) => response.end(),
    onUpgrade: (socket) => socket.destroy(),
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
  const recordRequest = ({ method, url }: IncomingMessage) =>
    hostile.requests.push(`${method ?? ''} ${url ?? ''}`);
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    recordRequest(request);
    response.on('error', () => undefined);
    hostile.respond(request, response);
  });
  server.on('upgrade', (request: IncomingMessage, socket: Duplex) => {
    recordRequest(request);
    socket.on('error', () => undefined);
    hostile.onUpgrade(socket, request);
  });
  return hostile;
}

const WEBSOCKET_ID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

/** Accepts a WebSocket handshake (RFC 6455). */
export function acceptWebSocket(socket: Duplex, request: IncomingMessage, protocol: string): void {
  const accept = createHash('sha1')
    .update(`${String(request.headers['sec-websocket-key'])}${WEBSOCKET_ID}`)
    .digest('base64');
  socket.write(
    [
      'HTTP/1.1 101 Switching Protocols',
      'Upgrade: websocket',
      'Connection: Upgrade',
      `Sec-WebSocket-Accept: ${accept}`,
      `Sec-WebSocket-Protocol: ${protocol}`,
      '\r\n',
    ].join('\r\n'),
  );
}

/** A binary message of up to 125 bytes on a channel of the remote command protocol. */
export function frame(channel: number, text: string): Buffer {
  const payload = Buffer.concat([Buffer.of(channel), Buffer.from(text)]);
  return Buffer.concat([Buffer.of(0x82, payload.length), payload]);
}

/** A pod in the JSON of an API server. */
export function podJson(name: string, state: object = { running: {} }): object {
  return {
    metadata: { name, resourceVersion: '1', creationTimestamp: '2020-01-01T00:00:00Z' },
    spec: { activeDeadlineSeconds: 1 },
    status: { phase: 'Running', containerStatuses: [{ state }] },
  };
}
