import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import type { SshServer } from '../../../src/lib/ssh/config.ts';
import type { SshConnections } from '../../../src/lib/ssh/connections.ts';
import type { ExecStream } from '../../../src/lib/ssh/connections.ts';
import { startCutProxy } from '../../support/cut-proxy.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import { startScriptedServer } from './scripted-server.ts';
import { afterThisTest, neverAborted, openConnections, serverAt } from './servers.ts';

/** Runs a command and returns its stdout. */
async function output(connections: SshConnections, server: SshServer, command: string): Promise<string> {
  const stream = await connections.openExecStream(server, command, neverAborted());
  stream.end();
  return await text(stream);
}

const openCat = (connections: SshConnections, server: SshServer) =>
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

  describe('authentication', () => {
    it('accepts a password', async () => {
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
    ] as const)('accepts the key %s', async (name, phrase) => {
      const { connections } = openConnections();
      const server = serverAt(plain, withKey(keys[name], phrase));
      expect(await output(connections, server, 'whoami')).toBe(`${user}\n`);
    });

    it.each([
      ['a wrong password', { password: 'not the password' }, /refused the user name and password/],
      ['a key that is not authorized', withKey(keys.other), /authorized_keys/],
      ['a wrong passphrase', withKey(keys.ed25519Pass, 'wrong'), /passphrase does not decrypt/],
      ['an encrypted key without a passphrase', withKey(keys.ed25519Pass), /is encrypted/],
      ['an unknown user', { username: 'nobody-of-this-name' }, /refused the user name/],
    ])('fails with %s', async (_name, changes, message) => {
      const { connections } = openConnections();
      await expect(output(connections, serverAt(plain, changes), 'true')).rejects.toMatchObject({
        failure: 'auth_failed',
        stage: 'authentication',
        hop: null,
        message: expect.stringMatching(message),
      });
    });

    it('sends the password as the answer to one hidden keyboard-interactive prompt, and to no other prompt', async () => {
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
      });
      const { connections } = openConnections();
      const opened = output(connections, serverAt(server, { password: 'asked-for-password' }), 'true');
      await expect(opened).rejects.toThrow(/asks for a one-time code/);
      expect(answers).toEqual([['asked-for-password']]);
    });

    it('tries each method once at a server that accepts every factor and always wants another one', async () => {
      const server = await startScriptedServer({
        authenticate: (context) => context.reject(['password', 'keyboard-interactive', 'publickey'], true),
      });
      const { connections } = openConnections();
      const opened = output(connections, serverAt(server), 'true');
      await expect(opened).rejects.toMatchObject({ failure: 'auth_failed' });
      expect(server.attempts).toEqual(['password', 'keyboard-interactive']);
    });
  });

  describe('the host key check', () => {
    it('reports a key that was never confirmed, and does not authenticate', async () => {
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

    it('reports a changed key together with the confirmed one, and does not authenticate', async () => {
      const server = await startScriptedServer();
      const { connections } = openConnections();
      const opened = output(connections, serverAt(server, {}, { hostKey: plain.hostKey }), 'true');
      await expect(opened).rejects.toMatchObject({ failure: 'host_key_changed', hostKey: server.hostKey });
      await expect(opened).rejects.toThrow(server.hostKey.fingerprint);
      await expect(opened).rejects.toThrow(plain.hostKey.fingerprint);
      expect(server.attempts).toEqual([]);
    });

    it('treats a key of another type with the same fingerprint as changed', async () => {
      const { connections } = openConnections();
      const hostKey = { ...plain.hostKey, type: 'ssh-rsa' };
      await expect(output(connections, serverAt(plain, {}, { hostKey }), 'true')).rejects.toMatchObject({
        failure: 'host_key_changed',
      });
    });
  });

  describe('connections through a jump server', () => {
    const jumpServer = (changes = {}, overrides = {}) =>
      serverAt(jump, changes, { serverId: 'jump', ...overrides });
    const behind = (jumpHost: SshServer, changes = {}, overrides = {}) =>
      serverAt(
        inner,
        { jump: jumpHost.serverId, ...changes },
        { jumpServers: new Map([[jumpHost.serverId, jumpHost]]), ...overrides },
      );

    it('use the account and host key of each hop', async () => {
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
      ['the unknown host key of the last server', jumpServer(), { hostKey: null }, 'host_key_unknown', null],
      [
        'the changed host key of the jump server',
        jumpServer({}, { hostKey: inner.hostKey }),
        {},
        'host_key_changed',
        'jump',
      ],
      [
        'the changed host key of the last server',
        jumpServer(),
        { hostKey: jump.hostKey },
        'host_key_changed',
        null,
      ],
      [
        'a wrong password of the jump server',
        jumpServer({ password: 'not the password' }),
        {},
        'auth_failed',
        'jump',
      ],
    ] as const)(
      '%s is reported as an error of that hop',
      async (_name, jumpHost, overrides, failure, hop) => {
        const { connections } = openConnections();
        const opened = output(connections, behind(jumpHost, {}, overrides), 'true');
        await expect(opened).rejects.toMatchObject({ failure, hop });
        if (hop !== null) await expect(opened).rejects.toThrow(`Jump server ${jump.host}:${jump.port}: `);
      },
    );

    it('a wrong password of the last server is reported as an error of that server', async () => {
      const { connections } = openConnections();
      const opened = output(connections, behind(jumpServer(), { password: 'not the password' }), 'true');
      await expect(opened).rejects.toMatchObject({ failure: 'auth_failed', hop: null });
    });

    it('distinguish a jump server that forwards nothing from one that cannot reach the server', async () => {
      const { connections } = openConnections();
      const closed = behind(serverAt(plain, {}, { serverId: 'plain' }));
      await expect(output(connections, closed, 'true')).rejects.toThrow(/AllowTcpForwarding/);
      const unreachable = behind(jumpServer(), { port: 1 });
      const opened = output(connections, unreachable, 'true');
      await expect(opened).rejects.toMatchObject({ failure: 'offline', stage: 'tcp', hop: null });
      await expect(opened).rejects.toThrow(/cannot reach this server/);
    });

    it('refuse a stored host that has a port behind its address, before any connection is opened', async () => {
      const { connections, dials } = openConnections();
      for (const server of [
        serverAt(plain, { host: '10.0.0.5:2222' }),
        behind(jumpServer({ host: '1:2:3' })),
      ])
        await expect(output(connections, server, 'true')).rejects.toMatchObject({
          ...{ failure: 'error', stage: 'policy' },
          message: expect.stringContaining('without a port'),
        });
      expect(dials()).toBe(0);
    });

    it.each<[string, Record<string, unknown>, string]>([
      ['a missing member', { username: undefined }, 'connection_config.username: is required'],
      ['a value of another type', { port: 'x' }, 'connection_config.port: must be a number'],
      [
        'a value that is too long',
        { password: 'x'.repeat(5_000) },
        'connection_config.password: must have 4096',
      ],
      ['a value that is too large', { port: 70_000 }, 'connection_config.port: must be 65535 or less'],
      [
        'an unknown choice',
        { auth_method: 'agent' },
        'connection_config.auth_method: must be one of password, key',
      ],
      ['an unknown member', { proxy: 'x' }, 'connection_config: has members that are not known: proxy'],
      ['a key that is no text', { private_key: 5 }, 'connection_config.private_key: must be text'],
    ])(
      'say in the words of the API what is wrong with a stored configuration: %s',
      async (_name, change, text) => {
        const { connections, dials } = openConnections();
        await expect(output(connections, serverAt(plain, change), 'true')).rejects.toMatchObject({
          ...{ failure: 'error', stage: 'policy' },
          message: expect.stringContaining(`The configuration is invalid. ${text}`),
        });
        expect(dials()).toBe(0);
      },
    );

    it('refuse a jump server that is missing, circular or of another owner before any connection is opened', async () => {
      const { connections, dials } = openConnections();
      const missing = serverAt(inner, { jump: 'gone' });
      const circle: SshServer = serverAt(inner, { jump: 'self' }, { serverId: 'self' });
      const circular = { ...circle, jumpServers: new Map([['self', circle]]) };
      const others = behind(jumpServer({}, { owner: 'user:other' }));
      for (const server of [missing, circular, others])
        await expect(output(connections, server, 'true')).rejects.toThrow(
          /must be another SSH server of yours/,
        );
      expect(dials()).toBe(0);
    });
  });

  describe('pooled connections', () => {
    it('are reused for the next command', async () => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      for (const word of ['one', 'two', 'three'])
        expect(await output(connections, server, `echo ${word}`)).toBe(`${word}\n`);
      expect(dials()).toBe(1);
    });

    it('run at most 8 commands at once on each connection', async () => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      const streams = await Promise.all(Array.from({ length: 17 }, () => openCat(connections, server)));
      expect(dials()).toBe(3);
      await end(streams);
      expect(await output(connections, server, 'echo again')).toBe('again\n');
      expect(dials()).toBe(3);
    });

    it('run fewer commands on each connection if the server allows fewer', async () => {
      const server = await startScriptedServer({
        maxSessions: 1,
        exec: (channel) => channel.on('end', () => channel.end()).resume(),
      });
      const { connections, dials } = openConnections();
      const streams = [await openCat(connections, serverAt(server, {}, { serverId: 'small' }))];
      streams.push(await openCat(connections, serverAt(server, {}, { serverId: 'small' })));
      expect(dials()).toBe(2);
      await end(streams);
    });

    it.each([
      ['another version', { version: 2 }],
      ['another owner', { owner: 'user:other' as const }],
      ['another server', { serverId: 'other' }],
    ])('are not reused for %s', async (_name, overrides) => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      await output(connections, server, 'true');
      await output(connections, { ...server, ...overrides }, 'true');
      expect(dials()).toBe(2);
    });

    it('are not reused after another host key was confirmed', async () => {
      const { connections } = openConnections();
      const server = serverAt(plain);
      await output(connections, server, 'true');
      const repinned = { ...server, hostKey: jump.hostKey };
      await expect(output(connections, repinned, 'true')).rejects.toMatchObject({
        failure: 'host_key_changed',
      });
    });

    it('are not reused after release, but commands in progress continue', async () => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      const stream = await openCat(connections, server);
      connections.release(server.serverId);
      expect(await output(connections, server, 'echo new')).toBe('new\n');
      expect(dials()).toBe(2);
      stream.write('still there');
      expect(String((await once(stream, 'data'))[0])).toBe('still there');
      await end([stream]);
    });

    it('of an owner are closed when idle, or else after their last command, and no others', async () => {
      const { connections, dials } = openConnections();
      const [own, used, other] = [
        serverAt(plain, withKey(keys.ed25519), { owner: 'user:own' }),
        serverAt(plain, {}, { owner: 'user:own' }),
        serverAt(plain, {}, { owner: 'user:other' }),
      ];
      for (const server of [own, other]) await output(connections, server, 'true');
      const stream = await openCat(connections, used);
      expect(connections.listOwners().sort()).toEqual(['user:other', 'user:own']);
      connections.releaseOwner('user:own');
      stream.write('still there');
      expect(String((await once(stream, 'data'))[0])).toBe('still there');
      await end([stream]);
      expect(connections.listOwners()).toEqual(['user:other']);
      for (const server of [other, own]) expect(await output(connections, server, 'echo x')).toBe('x\n');
      expect(dials()).toBe(4);
    });

    it('are replaced after they are lost', async () => {
      const proxy = await startCutProxy(`http://${plain.host}:${plain.port}`);
      afterThisTest(() => proxy.close());
      const { hostname, port } = new URL(proxy.url);
      const { connections, dials } = openConnections();
      const server = serverAt({ ...plain, host: hostname, port: Number(port) });
      const stream = await openCat(connections, server);
      proxy.cut();
      stream.resume();
      expect(await stream.ended).toMatchObject({ code: null, signal: null });
      proxy.restore();
      expect(await output(connections, server, 'echo back')).toBe('back\n');
      expect(dials()).toBe(2);
    });

    it('stay open for other callers when one that waits for the connection aborts', async () => {
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

  describe('an exec stream', () => {
    it('passes bytes both ways and reports the exit code and stderr', async () => {
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

    it('ends its program when it is destroyed, also one that waits for something else than its input', async () => {
      const { connections } = openConnections();
      const server = serverAt(plain);
      const stream = await connections.openExecStream(server, 'echo $$; exec sleep 300', neverAborted());
      const [id] = (await once(stream.setEncoding('utf8'), 'data')) as [string];
      const isRunning = () => output(connections, server, `kill -0 ${id.trim()} 2>/dev/null && echo running`);
      expect(await isRunning()).toBe('running\n');
      stream.destroy();
      await until(isRunning, (state) => state === '');
    });

    it('returns its slot when it is destroyed', async () => {
      const { connections, dials } = openConnections();
      const server = serverAt(plain);
      for (let round = 0; round < 12; round += 1) {
        const stream = await openCat(connections, server);
        stream.destroy();
        await stream.ended;
      }
      expect(dials()).toBe(1);
    });
  });
});
