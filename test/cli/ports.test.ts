import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { choosePort } from '../../src/cli/quickstart/ports.ts';

describe('choosing a port', () => {
  it('names the setting that changes a busy port', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    try {
      await expect(choosePort(port, 'KEYCLOAK_PORT')).rejects.toThrow(
        new RegExp(`Port ${port} is in use.*set KEYCLOAK_PORT`),
      );
    } finally {
      other.close();
      await once(other, 'close');
    }
    await expect(choosePort(port, 'KEYCLOAK_PORT')).resolves.toBe(port);
  });

  it('picks a free one for 0', async () => {
    const port = await choosePort(0, 'PORT');
    expect(port).toBeGreaterThan(0);
    const server = createServer().listen(port, '127.0.0.1');
    await once(server, 'listening');
    server.close();
    await once(server, 'close');
  });
});
