import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { createServer as createTlsServer, type TLSSocket, type TlsOptions } from 'node:tls';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from '@jest/globals';
import {
  createTlsConnector,
  findTlsErrorReason,
  type Connector,
  type TlsPeer,
} from '../../../src/lib/net/tls-connector.ts';
import { certificate } from '../../support/certificate.ts';
import {
  LOOPBACK,
  waitForClose,
  createTestDialer,
  errorWithCode,
  startHttpsUpstream,
  startTcpUpstream,
  until,
} from '../../support/local-upstreams.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const TRUSTING = { ca: certificate.cert, client: null };
const CLIENT = { cert: certificate.cert, key: certificate.key };

function connector(port: number, changes: Partial<TlsPeer> = {}): Connector {
  return createTlsConnector(createTestDialer(), { host: LOOPBACK, port, tls: TRUSTING, ...changes });
}

const reasonOf = async (attempt: Promise<unknown>) => {
  const error: unknown = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ code: 'upstream_unreachable' });
  return findTlsErrorReason(error);
};

/** A server that requires a client certificate and ends each connection after a greeting. */
async function asking(options: TlsOptions): Promise<number> {
  const server = createTlsServer({ ...certificate, requestCert: true, ...options }, (socket: TLSSocket) => {
    socket.on('error', () => undefined).end('hello');
  });
  server.on('tlsClientError', () => undefined);
  server.listen(0, LOOPBACK);
  await once(server, 'listening');
  cleanups.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

const never = new AbortController().signal;

describe('TLS over the dialer', () => {
  it('connects to a server whose certificate is valid for its name or address', async () => {
    const upstream = await startHttpsUpstream();
    const socket = await connector(upstream.port)(never);
    expect(socket).toMatchObject({ authorized: true });
    socket.destroy();
    await waitForClose(upstream.sockets[0]);
  });

  it('trusts the given authorities, otherwise the public ones', async () => {
    const { port } = await startHttpsUpstream();
    const attempt = connector(port, { tls: { ca: null, client: null } })(never);
    expect(await reasonOf(attempt)).toBe('untrusted');
  });

  it('refuses a certificate for another name', async () => {
    const { port } = await startHttpsUpstream();
    expect(await reasonOf(connector(port, { host: 'localhost' })(never))).toBe('wrong_name');
  });

  it('ignores the environment variable that disables the check', async () => {
    const { port } = await startHttpsUpstream();
    process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0';
    cleanups.push(() => delete process.env['NODE_TLS_REJECT_UNAUTHORIZED']);
    const attempt = connector(port, { tls: { ca: null, client: null } })(never);
    expect(await reasonOf(attempt)).toBe('untrusted');
  });

  it('detects a server that does not use TLS', async () => {
    const { port } = await startTcpUpstream((socket) => socket.write('SSH-2.0-x\r\n'));
    expect(await reasonOf(connector(port)(never))).toBe('not_tls');
  });

  it('sends the client certificate, and detects that the server requires another one', async () => {
    const port = await asking({ ca: certificate.cert });
    const socket = await connector(port, { tls: { ...TRUSTING, client: CLIENT } })(never);
    expect(await text(socket)).toBe('hello');
    // With TLS 1.2 the server refuses during the handshake, with 1.3 after it.
    const old = await asking({ ca: certificate.cert, maxVersion: 'TLSv1.2' });
    expect(await reasonOf(connector(old)(never))).toBe('client_refused');
    const refused = await connector(port)(never);
    const error: unknown = await text(refused).catch((reason: unknown) => reason);
    expect(findTlsErrorReason(error)).toBe('client_refused');
  });

  it('refuses versions before 1.2', async () => {
    const port = await asking({ maxVersion: 'TLSv1.1', minVersion: 'TLSv1', requestCert: false });
    await expect(connector(port)(never)).rejects.toMatchObject(
      errorWithCode('upstream_unreachable') as object,
    );
  });

  it('connects only where the dialer allows it', async () => {
    const { port } = await startHttpsUpstream();
    const strict = createTestDialer({ mode: 'deployed' });
    const connect = createTlsConnector(strict, { host: LOOPBACK, port, tls: TRUSTING });
    await expect(connect(never)).rejects.toEqual(errorWithCode('endpoint_forbidden'));
  });

  it('aborts a stalled handshake with the signal, and closes the connection', async () => {
    const upstream = await startTcpUpstream((socket) => socket.resume());
    const stop = new AbortController();
    const attempt = connector(upstream.port)(stop.signal);
    await until(() => upstream.sockets.length === 1);
    const reason = new Error('enough');
    stop.abort(reason);
    await expect(attempt).rejects.toBe(reason);
    await waitForClose(upstream.sockets[0]);
  });

  it('fails at once on an invalid client key', () => {
    expect(() =>
      connector(1, { tls: { ...TRUSTING, client: { cert: certificate.cert, key: 'text' } } }),
    ).toThrow();
  });
});
