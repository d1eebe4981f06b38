import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { choosePort, choosePorts, toLoopbackUrl } from '../../../src/dev/quickstart/ports.ts';

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

  it('names all ports in use with their settings in one message', async () => {
    const others = [createServer(), createServer(), createServer()];
    const used = await Promise.all(
      others.map(async (other) => {
        await once(other.listen(0, '127.0.0.1'), 'listening');
        return (other.address() as AddressInfo).port;
      }),
    );
    const [port = 0, metricsPort = 0, postgresPort = 0] = used;
    const later = [
      { requested: postgresPort, variable: 'POSTGRES_PORT' },
      { requested: 0, variable: 'KEYCLOAK_PORT' },
    ];
    const choose = (requested: number) =>
      choosePorts(
        [
          { requested, variable: 'PORT' },
          { requested: metricsPort, variable: 'METRICS_PORT' },
        ],
        later,
      );
    await expect(choose(port)).rejects.toThrow(
      `PORT=${port}, METRICS_PORT=${metricsPort}, POSTGRES_PORT=${postgresPort}. Stop`,
    );
    await expect(choose(0)).rejects.toThrow(`: METRICS_PORT=${metricsPort}, POSTGRES_PORT=${postgresPort}.`);
    await Promise.all(others.map((other) => once(other.close(), 'close')));
    // A port that is chosen later may still be in use by a server of this installation, which its start stops.
    const [free] = await choosePorts([{ requested: 0, variable: 'PORT' }], later);
    expect(free).toBeGreaterThan(0);
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
