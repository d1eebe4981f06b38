import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { choosePort, toLoopbackUrl } from '../../../src/dev/quickstart/ports.ts';

describe('choosing a port', () => {
  it('names the setting of a port that is in use', async () => {
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

  it('refuses a port on which another program listens at the other address of localhost', async () => {
    for (const [used, host] of [
      ['::1', '127.0.0.1'],
      ['127.0.0.1', '::1'],
    ] as const) {
      const otherListener = createServer().listen(0, used);
      await once(otherListener, 'listening');
      const { port } = otherListener.address() as AddressInfo;
      await expect(choosePort(port, 'KEYCLOAK_PORT', host)).rejects.toThrow(`Port ${port} is in use`);
      otherListener.close();
      await once(otherListener, 'close');
      await expect(choosePort(port, 'KEYCLOAK_PORT', host)).resolves.toBe(port);
    }
  });

  it('picks a free port for 0', async () => {
    const port = await choosePort(0, 'PORT');
    expect(port).toBeGreaterThan(0);
    const server = createServer().listen(port, '127.0.0.1');
    await once(server, 'listening');
    server.close();
    await once(server, 'close');
  });
});

describe('the address for requests of the app', () => {
  it('has an IP address instead of localhost', () => {
    expect(toLoopbackUrl('http://localhost:8080')).toBe('http://127.0.0.1:8080');
  });
});
