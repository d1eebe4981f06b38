import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { listTcpListeners } from '../../../src/dev/quickstart/listeners.ts';

const onLinux = process.platform === 'linux' ? it : it.skip;

describe('the listeners of a process', () => {
  onLinux('include each address and port, and no connections', async () => {
    const servers = ['127.0.0.1', '127.0.0.2', '::1'].map((host) => createServer().listen(0, host));
    await Promise.all(servers.map((server) => once(server, 'listening')));
    const addresses = servers.map((server) => server.address() as AddressInfo);
    const client = connect(addresses[0]?.port ?? 0, '127.0.0.1');
    await once(client, 'connect');
    const found = listTcpListeners(process.pid);
    for (const { address, port } of addresses) expect(found).toContainEqual({ host: address, port });
    expect(found).not.toContainEqual(expect.objectContaining({ port: client.localPort }));
    client.destroy();
    for (const server of servers) {
      server.close();
      await once(server, 'close');
    }
    for (const { port } of addresses)
      expect(listTcpListeners(process.pid)).not.toContainEqual(expect.objectContaining({ port }));
  });

  it('are empty after the process has exited', () => {
    expect(listTcpListeners(2 ** 30)).toEqual([]);
  });
});
