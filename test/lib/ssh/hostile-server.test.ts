import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import type { Connection, ServerChannel } from 'ssh2';
import { discardChannel } from '../../../src/lib/ssh/discard-channel.ts';
import { until } from '../../support/until.ts';
import { startScriptedServer, startRawTcpServer } from './scripted-server.ts';
import { afterThisTest, neverAborted, openConnections, serverAt } from './servers.ts';

const MIB = 2 ** 20;
const hostKey = { type: 'ssh-ed25519', fingerprint: `SHA256:${'A'.repeat(43)}` };
const login = { username: 'somebody', password: 'password-of-nobody' };

/** Private parts of ssh2's server, to send what a correct server never sends. */
interface Wire {
  _protocol: {
    channelData(channel: number, data: Buffer): void;
    channelWindowAdjust(channel: number, bytes: number): void;
    ping(): void;
    disconnect(reason: number): void;
  };
  _sock: { pause(): void; destroy(): void; write(data: Buffer): boolean; writableLength: number };
}
const wireOf = (client: Connection) => client as unknown as Wire;

describe('a server without valid SSH', () => {
  it.each([
    ['sends nothing', () => undefined],
    ['sends endless lines before the SSH banner', 'a line of many\r\n'.repeat(4_096)],
    ['sends an endless line', 'a'.repeat(65_536)],
    ['responds with HTTP', 'HTTP/1.1 400 Bad Request\r\n\r\n'],
    ['claims a packet of 4 GB', Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), Buffer.alloc(65_536, 0xff)])],
    ['closes the connection', null],
  ])(
    'that %s fails the handshake, and its text is not quoted',
    async (_name, bytes) => {
      const server = await startRawTcpServer((socket) => {
        if (bytes === null) socket.end('SSH-2.0-secret-banner\r\n');
        else if (typeof bytes !== 'function') {
          const send = () => {
            while (!socket.destroyed && socket.write(bytes));
          };
          socket.on('drain', send);
          send();
        }
      });
      const { connections } = openConnections();
      const opened = connections.openExecStream(
        serverAt({ ...server, hostKey }, login),
        'true',
        neverAborted(),
      );
      await expect(opened).rejects.toMatchObject({
        failure: expect.stringMatching(/^(?:offline|error)$/),
        stage: 'host_key',
        message: expect.not.stringContaining('banner'),
      });
    },
    30_000,
  );
});

describe('a hostile SSH server', () => {
  it('is disconnected when it sends more than its window allows to a client that does not read', async () => {
    let cut: () => void = () => undefined;
    const cutOff = new Promise<void>((resolve) => (cut = resolve));
    const server = await startScriptedServer({
      exec: (_channel, _command, client) => {
        const { _protocol, _sock } = wireOf(client);
        // Not a divisor of the window, so that the window never becomes exactly 0.
        const data = Buffer.alloc(32_001);
        const flood = setInterval(() => {
          if (_sock.writableLength < MIB)
            for (let packet = 0; packet < 32; packet += 1) _protocol.channelData(0, data);
        }, 1);
        client.once('close', () => {
          clearInterval(flood);
          cut();
        });
      },
    });
    const { connections } = openConnections();
    const stream = await connections.openExecStream(serverAt(server, login), 'true', neverAborted());
    await cutOff;
    expect(stream.readableLength).toBeLessThan(8 * MIB);
    stream.resume();
    expect(await stream.ended).toMatchObject({ code: null });
  }, 60_000);

  it('is disconnected when it opens a huge window and never reads', async () => {
    const server = await startScriptedServer({
      exec: (_channel, _command, client) => {
        const { _protocol, _sock } = wireOf(client);
        _protocol.channelWindowAdjust(0, 0x7fffffff);
        _sock.pause();
        const pings = setInterval(() => _protocol.ping(), 10);
        client.once('close', () => clearInterval(pings));
        afterThisTest(() => {
          clearInterval(pings);
          _sock.destroy();
        });
      },
    });
    const { connections } = openConnections();
    const stream = await connections.openExecStream(serverAt(server, login), 'true', neverAborted());
    stream.resume();
    const chunk = Buffer.alloc(MIB);
    const more = setInterval(() => stream.write(chunk), 1);
    expect(await stream.ended).toMatchObject({ code: null });
    clearInterval(more);
  });

  it('is disconnected when it leaves channels open that were closed, after the other channels have ended', async () => {
    const channels = new Map<string, ServerChannel>();
    let clients = 0;
    const gone = Promise.withResolvers<undefined>();
    const server = await startScriptedServer({
      onConnection(client) {
        clients += 1;
        client.once('close', () => gone.resolve(undefined));
      },
      exec(channel, command) {
        channels.set(command, channel);
        // It answers no CLOSE.
        if (command === 'stuck') channel.close = () => undefined;
      },
    });
    const { connections } = openConnections();
    const target = serverAt(server, login);
    const other = await connections.exec(target, 'other', neverAborted());
    const stuck = await connections.exec(target, 'stuck', neverAborted());
    other.resume();
    discardChannel(stuck);
    // The connection is not used any more, and stays for the other channel.
    await until(async () => {
      const next = await connections.exec(target, 'next', neverAborted());
      discardChannel(next);
      return clients === 2;
    });
    channels.get('other')?.end('bytes');
    channels.get('other')?.exit(0);
    await Promise.all([once(other, 'close'), gone.promise]);
  }, 40_000);

  it('cannot open channels to the client', async () => {
    const refusals: (Error | undefined)[] = [];
    const server = await startScriptedServer({
      exec: (channel, _command, client) => {
        client.forwardOut('127.0.0.1', 1, '127.0.0.1', 22, (error) => {
          refusals.push(error);
          client.x11('127.0.0.1', 1, (second) => {
            refusals.push(second);
            channel.exit(0);
            channel.end();
          });
        });
      },
    });
    const { connections } = openConnections();
    const stream = await connections.openExecStream(serverAt(server, login), 'true', neverAborted());
    stream.resume();
    expect(await stream.ended).toMatchObject({ code: 0 });
    expect(refusals).toEqual([expect.any(Error), expect.any(Error)]);
  });

  it('is not quoted when it disconnects with a text', async () => {
    const server = await startScriptedServer({
      authenticate: () => undefined,
      onConnection: (client) => {
        client.once('handshake', () => wireOf(client)._protocol.disconnect(2));
      },
    });
    const { connections } = openConnections();
    const opened = connections.openExecStream(serverAt(server, login), 'true', neverAborted());
    await expect(opened).rejects.toMatchObject({
      name: 'SshError',
      message: expect.not.stringMatching(/PROTOCOL_ERROR/),
    });
  });
});
