import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from '@jest/globals';
import {
  LOOPBACK,
  PUBLIC,
  createTestDialer,
  errorWithCode,
  fullBacklog,
  startTcpUpstream,
  until,
} from '../../support/local-upstreams.ts';

const forever = new AbortController().signal;

describe('a raw connection', () => {
  it('reaches the given host and port, and works in both directions', async () => {
    const upstream = await startTcpUpstream((socket) => socket.end('hello'));
    const socket = await createTestDialer().connect(LOOPBACK, upstream.port, forever);
    socket.end();
    expect(await text(socket)).toBe('hello');
  });

  it('dials exactly the checked addresses, also when the name resolves differently later', async () => {
    const upstream = await startTcpUpstream((socket) => socket.end('hello'));
    const lookupResults = [[LOOPBACK], ['169.254.169.254']];
    const from = createTestDialer({ lookup: () => Promise.resolve(lookupResults.shift() ?? []) });
    const socket = await from.connect('host.example', upstream.port, forever);
    expect(await text(socket)).toBe('hello');
    await expect(from.connect('host.example', upstream.port, forever)).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
  });

  it.each([
    '169.254.169.254',
    '0.0.0.0',
    '::',
    '::ffff:169.254.169.254',
    '[fd00:ec2::254]',
    '0x7f.1/',
    'a b',
    '@h',
  ])('is refused to %s', async (host) => {
    await expect(createTestDialer().connect(host, 22, forever)).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
  });

  it('is refused to addresses that are not public unless the operator allows them', async () => {
    const upstream = await startTcpUpstream((socket) => socket.end());
    const deployed = createTestDialer({ mode: 'deployed' });
    await expect(deployed.connect(LOOPBACK, upstream.port, forever)).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
    expect(upstream.sockets).toHaveLength(0);
  });

  it('is refused to a listener of this installation', async () => {
    const upstream = await startTcpUpstream((socket) => socket.end());
    const own = createTestDialer({ forbidden: () => [{ host: LOOPBACK, port: upstream.port }] });
    await expect(own.connect('localhost', upstream.port, forever)).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
  });

  it('is unreachable where no process listens', async () => {
    const upstream = await startTcpUpstream((socket) => socket.resume());
    const { port } = upstream;
    const free = await createTestDialer().connect(LOOPBACK, port, forever);
    free.destroy();
    await expect(createTestDialer().connect(LOOPBACK, 1, forever)).rejects.toEqual(
      errorWithCode('upstream_unreachable'),
    );
  });

  (process.platform === 'linux' ? it : it.skip)(
    'fails with the reason of a signal that aborts first',
    async () => {
      const port = await fullBacklog(LOOPBACK);
      const leaving = new AbortController();
      const reason = new Error('the client left');
      const connecting = createTestDialer().connect(LOOPBACK, port, leaving.signal);
      leaving.abort(reason);
      await expect(connecting).rejects.toBe(reason);
    },
  );

  it('is closed together with the dialer', async () => {
    const upstream = await startTcpUpstream((socket) => socket.resume());
    const from = createTestDialer();
    const socket = await from.connect(LOOPBACK, upstream.port, forever);
    await Promise.all([once(socket, 'close'), from.close()]);
    await until(() => upstream.sockets[0]?.destroyed === true);
    await expect(from.connect(PUBLIC, 22, forever)).rejects.toEqual(errorWithCode('upstream_unreachable'));
  });
});
