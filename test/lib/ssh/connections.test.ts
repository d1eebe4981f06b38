import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import type { SshServer } from '../../../src/lib/ssh/config.ts';
import type { SshConnections } from '../../../src/lib/ssh/connections.ts';
import type { ExecStream } from '../../../src/lib/ssh/connections.ts';
import { startCutProxy } from '../../support/cut-proxy.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';
import { startScriptedServer } from './scripted-server.ts';
import { afterThisTest, neverAborted, openConnections, serverAt } from './servers.ts';

/** What a command prints. */
async function output(connections: SshConnections, server: SshServer, command: string): Promise<string> {
  const stream = await connections.openExecStream(server, command, neverAborted());
  stream.end();
  return await text(stream);
}

const held = (connections: SshConnections, server: SshServer) =>
  connections.openExecStream(server, 'cat', neverAborted());

async function end(streams: readonly ExecStream[]): Promise<void> {
  for (const stream of streams) {
    stream.end();
    stream.resume();
  }
  await Promise.all(streams.map((stream) => stream.ended));
}

describeOn('ssh', 'SSH connections', () => {
  const { plain, jump, inner, user, keys, passphrase } = sshHosts();
  const withKey = (private_key: string, phrase: string | null = null) => ({
    auth_method: 'key',
    password: null,
    private_key,
    passphrase: phrase,
  });

  describe('signing in', () => {
    it('works with a password', async () => {
      const { connections } = openConnections();
      expect(await output(connections, serverAt(plain), 'whoami')).toBe(`${user}\n`);
    });

    it.each([
      ['ed25519', null],
      ['rsa', null],
      ['ecdsa', null],
      ['rsaPem', null],
      ['ed25519Pass', passphrase],
      ['rsaPemPass', passphrase],
    ] as const)('works with the key %s', async (name, phrase) => {
      const { connections } = openConnections();
      const server = serverAt(plain, withKey(keys[name], phrase));
      expect(await output(connections, server, 'whoami')).toBe(`${user}\n`);
    });

    it.each([
      ['a wrong password', { password: 'not the password' }, /refused the user name and password/],
      ['a key that is not authorized', withKey(keys.other), /authorized_keys/],
      ['a wrong passphrase', withKey(keys.ed25519Pass, 'wrong'), /passphrase does not open/],
      ['an encrypted key without a passphrase', withKey(keys.ed25519Pass), /is encrypted/],
      ['a user who is not there', { username: 'nobody-of-this-name' }, /refused the user name/],
    ])('fails with %s', async (_name, given, message) => {
      const { connections } = openConnections();
      await expect(output(connections, serverAt(plain, given), 'true')).rejects.toMatchObject({
        failure: 'auth_failed',
        stage: 'authentication',
        hop: null,
        message: expect.stringMatching(message),
      });
    });

    it('answers the one hidden question of a server that asks instead of taking passwords, and no other', async () => {
      const answers: string[][] = [];
      const server = await startScriptedServer({
        authenticate: (context) => {
          if (context.method !== 'keyboard-interactive') {
            context.reject(['keyboard-interactive']);
            return;
          }
          context.prompt([{ prompt: 'Password: ', echo: false }], (first) => {
            answers.push(first);
            context.prompt([{ prompt: 'Code: ', echo: false }], (second) => {
              answers.push(second);
              context.accept();
            });
          });
        },
        exec: (channel) => {
          channel.exit(0);
          channel.end();
        },
      });
      const { connections } = openConnections();
      await output(connections, serverAt(server, { password: 'asked-for-password' }), 'true');
      expect(answers).toEqual([['asked-for-password'], ['']]);
    });

    it('fails at a server that wants a second factor', async () => {
      const server = await startScriptedServer({
        authenticate: (context) => context.reject(['keyboard-interactive'], true),
      });
      const { connections } = openConnections();
      const opened = output(connections, serverAt(server), 'true');
      await expect(opened).rejects.toMatchObject({ failure: 'auth_failed' });
      expect(server.attempts).toEqual(['password']);
    });
  });

  describe('the host key', () => {
    it('that was never confirmed is told, and nothing is authenticated', async () => {
      const server = await startScriptedServer();
      const { connections } = openConnections();
      const opened = output(connections, serverAt(server, {}, { hostKey: null }), 'true');
      await expect(opened).rejects.toMatchObject({
        failure: 'host_key_unknown',
        stage: 'host_key',
        hop: null,
        hostKey: server.hostKey,
      });
      expect(server.attempts).toEqual([]);
    });

    it('that has changed is told beside the confirmed one, and nothing is authenticated', async () => {
      const server = await startScriptedServer();
      const { connections } = openConnections();
      const opened = output(connections, serverAt(server, {}, { hostKey: plain.hostKey }), 'true');
      await expect(opened).rejects.toMatchObject({ failure: 'host_key_changed', hostKey: server.hostKey });
      await expect(opened).rejects.toThrow(server.hostKey.fingerprint);
      await expect(opened).rejects.toThrow(plain.hostKey.fingerprint);
      expect(server.attempts).toEqual([]);
    });

    it('of another type with the same fingerprint is another key', async () => {
      const { connections } = openConnections();
      const hostKey = { ...plain.hostKey, type: 'ssh-rsa' };
      await expect(output(connections, serverAt(plain, {}, { hostKey }), 'true')).rejects.toMatchObject({
        failure: 'host_key_changed',
      });
    });
  });

  describe('through a jump server', () => {
    const jumpServer = (given = {}, own = {}) => serverAt(jump, given, { serverId: 'jump', ...own });
    const behind = (before: SshServer, given = {}, own = {}) =>
      serverAt(
        inner,
        { jump: before.serverId, ...given },
        { jumpServers: new Map([[before.serverId, before]]), ...own },
      );

    it('a server is reached, each hop with its own account and host key', async () => {
      const { connections, dials } = openConnections();
      const server = behind(jumpServer(withKey(keys.rsa)), withKey(keys.ed25519));
      expect(await output(connections, server, 'whoami')).toBe(`${user}\n`);
      expect(await output(connections, server, 'whoami')).toBe(`${user}\n`);
      expect(dials()).toBe(1);
    });

    it.each([
      [
        'the unknown host key of the jump server',
        jumpServer({}, { hostKey: null }),
        {},
        'host_key_unknown',
        'jump',
      ],
      ['the unknown host key behind it', jumpServer(), { hostKey: null }, 'host_key_unknown', null],
      [
        'the changed host key of the jump server',
        jumpServer({}, { hostKey: inner.hostKey }),
        {},
        'host_key_changed',
        'jump',
      ],
      ['the changed host key behind it', jumpServer(), { hostKey: jump.hostKey }, 'host_key_changed', null],
      [
        'the password of the jump server',
        jumpServer({ password: 'not the password' }),
        {},
        'auth_failed',
        'jump',
      ],
    ] as const)('%s is the fault of that hop', async (_name, before, own, failure, hop) => {
      const { connections } = openConnections();
      const opened = output(connections, behind(before, {}, own), 'true');
      await expect(opened).rejects.toMatchObject({ failure, hop });
      if (hop !== null) await expect(opened).rejects.toThrow(`Jump server ${jump.host}:${jump.port}: `);
    });

    it('the password of the server behind is the fault of the server', async () => {
      const { connections } = openConnections();
      const opened = output(connections, behind(jumpServer(), { password: 'not the password' }), 'true');
      await expect(opened).rejects.toMatchObject({ failure: 'auth_failed', hop: null });
    });

    it('a jump server that forwards nothing is told from one that cannot reach the server', async () => {
      const { connections } = openConnections();
      const closed = behind(serverAt(plain, {}, { serverId: 'plain' }));
      await expect(output(connections, closed, 'true')).rejects.toThrow(/AllowTcpForwarding/);
      const nobody = behind(jumpServer(), { port: 1 });
      const opened = output(connections, nobody, 'true');
      await expect(opened).rejects.toMatchObject({ failure: 'offline', stage: 'tcp', hop: null });
      await expect(opened).rejects.toThrow(/cannot reach it/);
    });

    it('a jump server that is missing, goes in a circle or is another owner’s is refused before anything is dialled', async () => {
      const { connections, dials } = openConnections();
      const missing = serverAt(inner, { jump: 'gone' });
      const circle: SshServer = serverAt(inner, { jump: 'self' }, { serverId: 'self' });
      const round = { ...circle, jumpServers: new Map([['self', circle]]) };
      const others = behind(jumpServer({}, { owner: 'user:other' }));
      for (const server of [missing, round, others])
        await expect(output(connections, server, 'true')).rejects.toThrow(
          /must be another SSH server of yours/,
        );
      expect(dials()).toBe(0);
    });
  });

  describe('are kept', () => {
    it('for the next command', async () => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      for (const word of ['one', 'two', 'three'])
        expect(await output(connections, server, `echo ${word}`)).toBe(`${word}\n`);
      expect(dials()).toBe(1);
    });

    it('with at most 8 commands at once on each', async () => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      const streams = await Promise.all(Array.from({ length: 17 }, () => held(connections, server)));
      expect(dials()).toBe(3);
      await end(streams);
      expect(await output(connections, server, 'echo again')).toBe('again\n');
      expect(dials()).toBe(3);
    });

    it('with fewer on each where the server allows fewer', async () => {
      const server = await startScriptedServer({
        maxSessions: 1,
        exec: (channel) => channel.on('end', () => channel.end()).resume(),
      });
      const { connections, dials } = openConnections();
      const streams = [await held(connections, serverAt(server, {}, { serverId: 'small' }))];
      streams.push(await held(connections, serverAt(server, {}, { serverId: 'small' })));
      expect(dials()).toBe(2);
      await end(streams);
    });

    it.each([
      ['another version', { version: 2 }],
      ['another owner', { owner: 'user:other' as const }],
      ['another server', { serverId: 'other' }],
    ])('but not for %s', async (_name, own) => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      await output(connections, server, 'true');
      await output(connections, { ...server, ...own }, 'true');
      expect(dials()).toBe(2);
    });

    it('but not past a host key that was confirmed anew', async () => {
      const { connections } = openConnections();
      const server = serverAt(plain);
      await output(connections, server, 'true');
      const repinned = { ...server, hostKey: jump.hostKey };
      await expect(output(connections, repinned, 'true')).rejects.toMatchObject({
        failure: 'host_key_changed',
      });
    });

    it('until they are let go of, while what is under way goes on', async () => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      const stream = await held(connections, server);
      connections.forget(server.serverId);
      expect(await output(connections, server, 'echo new')).toBe('new\n');
      expect(dials()).toBe(2);
      stream.write('still there');
      expect(String((await once(stream, 'data'))[0])).toBe('still there');
      await end([stream]);
    });

    it('until they break: the next command makes a new one', async () => {
      const proxy = await startCutProxy(`http://${plain.host}:${plain.port}`);
      afterThisTest(() => proxy.close());
      const { hostname, port } = new URL(proxy.url);
      const { connections, dials } = openConnections();
      const server = serverAt({ ...plain, host: hostname, port: Number(port) });
      const stream = await held(connections, server);
      proxy.cut();
      stream.resume();
      expect(await stream.ended).toMatchObject({ code: null, signal: null });
      proxy.restore();
      expect(await output(connections, server, 'echo back')).toBe('back\n');
      expect(dials()).toBe(2);
    });

    it('and one who gives up waiting for one does not take it from the others', async () => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      const leaving = new AbortController();
      const gone = connections.openExecStream(server, 'cat', leaving.signal);
      const staying = output(connections, server, 'echo stayed');
      leaving.abort(new Error('left'));
      await expect(gone).rejects.toThrow('left');
      expect(await staying).toBe('stayed\n');
      expect(dials()).toBe(1);
    });
  });

  describe('a command as a stream', () => {
    it('passes bytes both ways and tells how it ended', async () => {
      const { connections } = openConnections();
      const stream = await connections.openExecStream(
        serverAt(plain),
        'cat; echo wrong >&2; exit 3',
        neverAborted(),
      );
      const bytes = Buffer.from(Array.from({ length: 256 }, (_, value) => value));
      stream.end(bytes);
      expect(Buffer.from(await text(stream.setEncoding('latin1')), 'latin1')).toEqual(bytes);
      expect(await stream.ended).toEqual({ code: 3, signal: null, stderr: 'wrong\n' });
    });

    it('that is destroyed gives its place back', async () => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      for (let round = 0; round < 12; round += 1) {
        const stream = await held(connections, server);
        stream.destroy();
        await stream.ended;
      }
      expect(dials()).toBe(1);
    });
  });
});
