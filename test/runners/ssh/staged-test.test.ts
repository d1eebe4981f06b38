import { describe, expect, it } from '@jest/globals';
import { createServer } from 'node:net';
import { once } from 'node:events';
import type { ServerChannel } from 'ssh2';
import type { Dialer } from '../../../src/lib/net/dialer.ts';
import { createDialer } from '../../../src/lib/net/dialer.ts';
import type { SshServer } from '../../../src/lib/ssh/config.ts';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import type { TargetServer, ServerTestResult } from '../../../src/runners/runner.ts';
import { createSshRunner } from '../../../src/runners/ssh/index.ts';
import { startScriptedServer } from '../../lib/ssh/scripted-server.ts';
import { afterThisTest, localDialer, neverAborted, serverAt } from '../../lib/ssh/servers.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';
import { fullBacklog } from '../../support/local-upstreams.ts';

/** Tests a server by a runner of its own. */
async function tested(
  server: SshServer,
  dialer: Dialer = localDialer(),
  workspacePath: string | null = null,
): Promise<ServerTestResult> {
  const connections = createSshConnections({ dialer });
  const runner = createSshRunner({ connections });
  afterThisTest(async () => {
    await runner.close();
    await dialer.close();
  });
  const target = { ...server, workspacePath } as TargetServer<never>;
  return await runner.test(target, neverAborted());
}

/** Names of the stages by how they ended. */
const stages = ({ stages: all }: ServerTestResult, status: string) =>
  all.filter((stage) => stage.status === status).map(({ name }) => name);

const login = { username: 'somebody', password: 'password-of-nobody' };
const hostKey = { type: 'ssh-ed25519', fingerprint: `SHA256:${'A'.repeat(43)}` };
const BEFORE = ['policy', 'tcp', 'host_key', 'authentication', 'permission'];

async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

describe('the test of an SSH server', () => {
  it.each(['169.254.169.254', '0.0.0.0', '[fd00:ec2::254]', '224.0.0.1'])(
    'fails at the policy for %s',
    async (host) => {
      const result = await tested(serverAt({ host, port: 22, hostKey }, login));
      expect(result).toMatchObject({ status: 'forbidden', hostKey: null });
      expect(stages(result, 'failed')).toEqual(['policy']);
    },
  );

  it('fails at the policy for a name that leads to an address of our own network', async () => {
    const dialer = createDialer({
      mode: 'deployed',
      allow: undefined,
      deny: [],
      forbidden: () => [],
      connectTimeoutMs: 2_000,
      lookup: () => Promise.resolve(['10.0.0.1']),
    });
    const result = await tested(serverAt({ host: 'inside.example', port: 22, hostKey }, login), dialer);
    expect(result.status).toBe('forbidden');
  });

  it('fails at TCP where nothing listens', async () => {
    const result = await tested(serverAt({ host: '127.0.0.1', port: await closedPort(), hostKey }, login));
    expect(result.status).toBe('offline');
    expect(stages(result, 'ok')).toEqual(['policy']);
    expect(stages(result, 'failed')).toEqual(['tcp']);
    expect(stages(result, 'skipped')).toHaveLength(7);
  });

  it('fails at TCP where a name is not found', async () => {
    const result = await tested(serverAt({ host: 'nowhere.invalid', port: 22, hostKey }, login));
    expect(result).toMatchObject({ status: 'offline' });
    expect(stages(result, 'failed')).toEqual(['tcp']);
  });

  it('fails at TCP where nobody answers', async () => {
    const host = '127.0.0.3';
    const result = await tested(
      serverAt({ host, port: await fullBacklog(host), hostKey }, login),
      localDialer(500),
    );
    expect(result).toMatchObject({ status: 'offline', message: expect.stringContaining('in time') });
    expect(stages(result, 'failed')).toEqual(['tcp']);
  });

  it('fails at the permission where a sign-in may run nothing', async () => {
    const server = await startScriptedServer({ maxSessions: 0 });
    const result = await tested(serverAt(server, login));
    expect(result).toMatchObject({ status: 'error', message: expect.stringContaining('MaxSessions') });
    expect(stages(result, 'failed')).toEqual(['permission']);
  });

  it('fails at the permission where another command is run, and does not quote it', async () => {
    const server = await startScriptedServer({
      exec: (channel) => {
        channel.stderr.write('secret-banner: this account is not available\n');
        channel.exit(1);
        channel.end('secret-banner');
      },
    });
    const result = await tested(serverAt(server, login));
    expect(result).toMatchObject({ status: 'error', message: expect.stringContaining('forced command') });
    expect(stages(result, 'failed')).toEqual(['permission']);
    expect(JSON.stringify(result)).not.toContain('banner');
  });

  it('fails at the permission where a shell talks for ever', async () => {
    const server = await startScriptedServer({
      exec: (channel) => {
        const talk = () => {
          while (channel.writable && channel.write('welcome '.repeat(1_000)));
        };
        channel.on('drain', talk);
        talk();
      },
    });
    const result = await tested(serverAt(server, login));
    expect(result).toMatchObject({ status: 'error' });
    expect(stages(result, 'failed')).toEqual(['permission']);
  });
});

/** A host that plays the launcher: it says that the program has started, what it prints, and at the end how it ended. */
function playLauncher(print: (nonce: string) => string, ending: string) {
  return (channel: ServerChannel) => {
    let input = '';
    channel.on('data', (chunk: Buffer) => {
      const before = input;
      input += chunk.toString('latin1');
      if (before.includes('\ngo\n') || !input.includes('\ngo\n')) return;
      const start = `\x1e${input.slice(0, 32)}`;
      channel.stderr.write(`${start}S\n`);
      channel.write(`${start}S\n${print(/OPS_TEST_NONCE=(\w+)/.exec(input)?.[1] ?? '')}`, 'latin1');
    });
    channel.once('end', () => {
      if (ending !== '') channel.stderr.write(`\x1e${input.slice(0, 32)}${ending}\n`);
      channel.exit('KILL');
      channel.end();
    });
  };
}

describe('the test of a server that pretends', () => {
  const echo = (nonce: string) => `${nonce}\0\xff`;

  it.each([
    ['echo', (nonce: string) => `${nonce}\0?`, 'V'],
    ['kill', echo, ''],
    ['kill', echo, 'U'],
    ['cleanup', echo, 'V'],
  ])(
    'fails at the stage %s, which it does not pass (%#)',
    async (stage, print, ending) => {
      const server = await startScriptedServer({ exec: playLauncher(print, ending) });
      const result = await tested(serverAt(server, login));
      expect(result.status).toBe('error');
      expect(stages(result, 'failed')).toEqual([stage]);
    },
    60_000,
  );
});

describeOn('ssh', 'the test of a real SSH server', () => {
  const { plain, jump, inner, keys } = sshHosts();

  it('fails at the host key when it was never confirmed, and shows it', async () => {
    const result = await tested(serverAt(plain, {}, { hostKey: null }));
    expect(result).toMatchObject({ status: 'host_key_unknown', hostKey: { ...plain.hostKey, hop: null } });
    expect(stages(result, 'ok')).toEqual(['policy', 'tcp']);
    expect(stages(result, 'failed')).toEqual(['host_key']);
  });

  it('fails at the host key when it has changed, and shows both', async () => {
    const result = await tested(serverAt(plain, {}, { hostKey: jump.hostKey }));
    expect(result).toMatchObject({ status: 'host_key_changed', hostKey: { ...plain.hostKey, hop: null } });
    expect(result.message).toContain(plain.hostKey.fingerprint);
    expect(result.message).toContain(jump.hostKey.fingerprint);
  });

  it.each([
    ['a wrong password', { password: 'not the password' }, 'refused the user name'],
    ['a wrong key', { auth_method: 'key', private_key: keys.other }, 'authorized_keys'],
    ['an encrypted key alone', { auth_method: 'key', private_key: keys.rsaPass }, 'is encrypted'],
    [
      'a key of PuTTY',
      { auth_method: 'key', private_key: 'PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n' },
      'puttygen',
    ],
  ])('fails at the authentication with %s', async (_name, given, message) => {
    const result = await tested(serverAt(plain, given));
    expect(result).toMatchObject({ status: 'auth_failed', message: expect.stringContaining(message) });
    expect(stages(result, 'failed')).toEqual(['authentication']);
  });

  it('tells which hop failed, and passes over what was not reached', async () => {
    const before = serverAt(jump, {}, { serverId: 'jump', hostKey: null });
    const through = serverAt(inner, { jump: 'jump' }, { jumpServers: new Map([['jump', before]]) });
    const result = await tested(through);
    expect(result).toMatchObject({ status: 'host_key_unknown', hostKey: { ...jump.hostKey, hop: 'jump' } });
    expect(stages(result, 'failed')).toEqual(['host_key']);

    const known = { ...before, hostKey: jump.hostKey };
    const result2 = await tested({ ...through, hostKey: null, jumpServers: new Map([['jump', known]]) });
    expect(result2).toMatchObject({ status: 'host_key_unknown', hostKey: { ...inner.hostKey, hop: null } });
    expect(stages(result2, 'ok')).toEqual(['policy', 'tcp']);
  });

  it.each(['/nowhere', '/root', '/tmp\n/etc', 'somewhere'])(
    'fails at the workspace %j',
    async (workspacePath) => {
      const result = await tested(serverAt(plain), localDialer(), workspacePath);
      expect(result.status).toBe('error');
      expect(stages(result, 'failed')).toEqual(['workspace']);
      expect(stages(result, 'skipped')).toEqual(expect.arrayContaining(['echo', 'kill', 'cleanup']));
    },
  );

  it('is online through a jump server', async () => {
    const before = serverAt(jump, {}, { serverId: 'jump' });
    const through = serverAt(inner, { jump: 'jump' }, { jumpServers: new Map([['jump', before]]) });
    const result = await tested(through);
    expect(result).toMatchObject({ status: 'online', hostKey: null });
    expect(stages(result, 'ok')).toEqual([...BEFORE, 'workspace', 'echo', 'kill', 'cleanup']);
  });
});
