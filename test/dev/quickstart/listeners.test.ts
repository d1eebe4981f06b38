import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { listTcpListeners } from '../../../src/dev/quickstart/listeners.ts';

const onLinux = process.platform === 'linux' ? it : it.skip;

describe('what a process listens on', () => {
  onLinux('is found with its address and port, and its connections are not', async () => {
    const servers = ['127.0.0.1', '127.0.0.2', '::1'].map((host) => createServer().listen(0, host));
    await Promise.all(servers.map((server) => once(server, 'listening')));
    const spots = servers.map((server) => server.address() as AddressInfo);
    const client = connect(spots[0]?.port ?? 0, '127.0.0.1');
    await once(client, 'connect');
    const found = listTcpListeners(process.pid);
    for (const { address, port } of spots) expect(found).toContainEqual({ host: address, port });
    expect(found).not.toContainEqual(expect.objectContaining({ port: client.localPort }));
    client.destroy();
    for (const server of servers) {
      server.close();
      await once(server, 'close');
    }
    for (const { port } of spots)
      expect(listTcpListeners(process.pid)).not.toContainEqual(expect.objectContaining({ port }));
  });

  it('is nothing once the process is gone', () => {
    expect(listTcpListeners(2 ** 30)).toEqual([]);
  });
});
