import { describe, expect, it } from '@jest/globals';
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import path from 'node:path';
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
import { createReadyFrame, readSecrets } from './ssh-runs.ts';

/** Runs the test of a server with a new runner. */
async function testServer(
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

/** Names of the stages with a status. */
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
      const result = await testServer(serverAt({ host, port: 22, hostKey }, login));
      expect(result).toMatchObject({ status: 'forbidden', hostKey: null });
      expect(stages(result, 'failed')).toEqual(['policy']);
    },
  );

  it('fails at the policy for a name with an address in the internal network', async () => {
    const dialer = createDialer({
      mode: 'deployed',
      allow: undefined,
      deny: [],
      forbidden: () => [],
      connectTimeoutMs: 2_000,
      lookup: () => Promise.resolve(['10.0.0.1']),
    });
    const result = await testServer(serverAt({ host: 'inside.example', port: 22, hostKey }, login), dialer);
    expect(result.status).toBe('forbidden');
  });

  it('fails at TCP if no process listens on the port', async () => {
    const result = await testServer(
      serverAt({ host: '127.0.0.1', port: await closedPort(), hostKey }, login),
    );
    expect(result.status).toBe('offline');
    expect(stages(result, 'ok')).toEqual(['policy']);
    expect(stages(result, 'failed')).toEqual(['tcp']);
    expect(stages(result, 'skipped')).toHaveLength(7);
  });

  it('fails at the policy if the name is not found, as for an address that is not allowed', async () => {
    const result = await testServer(serverAt({ host: 'nowhere.invalid', port: 22, hostKey }, login));
    const refused = await testServer(serverAt({ host: '169.254.169.254', port: 22, hostKey }, login));
    expect(result).toMatchObject({ status: 'forbidden', message: refused.message });
    expect(stages(result, 'failed')).toEqual(['policy']);
  });

  it('fails at TCP if the server does not respond', async () => {
    const host = '127.0.0.3';
    const result = await testServer(
      serverAt({ host, port: await fullBacklog(host), hostKey }, login),
      localDialer(500),
    );
    expect(result).toMatchObject({ status: 'offline', message: expect.stringContaining('in time') });
    expect(stages(result, 'failed')).toEqual(['tcp']);
  });

  it('fails at the permission if the account may open no session', async () => {
    const server = await startScriptedServer({ maxSessions: 0 });
    const result = await testServer(serverAt(server, login));
    expect(result).toMatchObject({ status: 'error', message: expect.stringContaining('MaxSessions') });
    expect(stages(result, 'failed')).toEqual(['permission']);
  });

  it('fails at the permission if a forced command runs, and does not quote its output', async () => {
    const server = await startScriptedServer({
      exec: (channel) => {
        channel.stderr.write('secret-banner: this account is not available\n');
        channel.exit(1);
        channel.end('secret-banner');
      },
    });
    const result = await testServer(serverAt(server, login));
    expect(result).toMatchObject({ status: 'error', message: expect.stringContaining('forced command') });
    expect(result.message).toContain('password of the account may have expired');
    expect(stages(result, 'failed')).toEqual(['permission']);
    expect(JSON.stringify(result)).not.toContain('banner');
  });

  it('fails at the permission if the shell prints endlessly', async () => {
    const server = await startScriptedServer({
      exec: (channel) => {
        const printWelcome = () => {
          while (channel.writable && channel.write('welcome '.repeat(1_000)));
        };
        channel.on('drain', printWelcome);
        printWelcome();
      },
    });
    const result = await testServer(serverAt(server, login));
    expect(result).toMatchObject({ status: 'error' });
    expect(stages(result, 'failed')).toEqual(['permission']);
  });
});

/**
 * Acts as the launcher: reports the start, prints, and at the end of the input sends the frame `report`. It adds the
 * variables of the runs that are cleaned up to `cleanups`.
 */
function actAsLauncher(print: (nonce: string) => string, report: string, cleanups: string[]) {
  return (channel: ServerChannel, command: string) => {
    const [cleanup] = /OPS_RUN_ID=[\w-]+/.exec(command) ?? [];
    if (cleanup !== undefined) {
      cleanups.push(cleanup);
      channel.exit(0);
      channel.end();
      return;
    }
    let input = '';
    channel.write(createReadyFrame(command));
    channel.on('data', (chunk: Buffer) => {
      const previous = input;
      input += chunk.toString('latin1');
      if (previous.includes('\ngo\n') || !input.includes('\ngo\n')) return;
      const start = `\x1e${readSecrets(input).marker}N\n`;
      channel.stderr.write(start);
      channel.write(`${start}${print(/OPS_TEST_NONCE=(\w+)/.exec(input)?.[1] ?? '')}`, 'latin1');
    });
    channel.once('end', () => {
      const { marker, watcherProof: proof } = readSecrets(input);
      if (report !== '') channel.stderr.write(`\x1e${marker}${proof}${report}\n`);
      channel.exit('KILL');
      channel.end();
    });
  };
}

describe('the test of a server that reports false results', () => {
  // No interpreter is found.
  const echo = (nonce: string) => `${nonce}\0\xff${'\n'.repeat(6)}`;

  it.each([
    ['echo', (nonce: string) => `${nonce}\0?`, 'V'],
    ['kill', echo, ''],
    ['kill', echo, 'U'],
  ])(
    'fails at the stage %s, and is cleaned up (%#)',
    async (stage, print, report) => {
      const cleanups: string[] = [];
      const server = await startScriptedServer({ exec: actAsLauncher(print, report, cleanups) });
      const result = await testServer(serverAt(server, login));
      expect(result.status).toBe('error');
      expect(stages(result, 'failed')).toEqual([stage]);
      expect(cleanups).toEqual([expect.stringMatching(/^OPS_RUN_ID=test-/)]);
    },
    60_000,
  );
});

describeOn('ssh', 'the test of a real SSH server', () => {
  const { plain, jump, inner, python, bare, keys } = sshHosts();

  it('fails at the host key if it was never confirmed, and returns it', async () => {
    const result = await testServer(serverAt(plain, {}, { hostKey: null }));
    expect(result).toMatchObject({ status: 'host_key_unknown', hostKey: { ...plain.hostKey, hop: null } });
    expect(stages(result, 'ok')).toEqual(['policy', 'tcp']);
    expect(stages(result, 'failed')).toEqual(['host_key']);
  });

  it('fails at the host key if it has changed, and names both keys', async () => {
    const result = await testServer(serverAt(plain, {}, { hostKey: jump.hostKey }));
    expect(result).toMatchObject({ status: 'host_key_changed', hostKey: { ...plain.hostKey, hop: null } });
    expect(result.message).toContain(plain.hostKey.fingerprint);
    expect(result.message).toContain(jump.hostKey.fingerprint);
  });

  it.each([
    ['a wrong password', { password: 'not the password' }, 'refused the user name'],
    ['a wrong key', { auth_method: 'key', private_key: keys.other }, 'authorized_keys'],
    [
      'an encrypted key without a passphrase',
      { auth_method: 'key', private_key: keys.rsaPass },
      'is encrypted',
    ],
    [
      'a PuTTY key',
      { auth_method: 'key', private_key: 'PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n' },
      'puttygen',
    ],
  ])('fails at the authentication with %s', async (_name, changes, message) => {
    const result = await testServer(serverAt(plain, changes));
    expect(result).toMatchObject({ status: 'auth_failed', message: expect.stringContaining(message) });
    expect(stages(result, 'failed')).toEqual(['authentication']);
  });

  it('names the hop that failed, and skips later stages', async () => {
    const jumpServer = serverAt(jump, {}, { serverId: 'jump', hostKey: null });
    const through = serverAt(inner, { jump: 'jump' }, { jumpServers: new Map([['jump', jumpServer]]) });
    const result = await testServer(through);
    expect(result).toMatchObject({ status: 'host_key_unknown', hostKey: { ...jump.hostKey, hop: 'jump' } });
    expect(stages(result, 'failed')).toEqual(['host_key']);

    const known = { ...jumpServer, hostKey: jump.hostKey };
    const secondResult = await testServer({
      ...through,
      hostKey: null,
      jumpServers: new Map([['jump', known]]),
    });
    expect(secondResult).toMatchObject({
      status: 'host_key_unknown',
      hostKey: { ...inner.hostKey, hop: null },
    });
    expect(stages(secondResult, 'ok')).toEqual(['policy', 'tcp']);
  });

  it.each(['/nowhere', '/root', '/tmp\n/etc', 'somewhere'])(
    'fails at the workspace %j',
    async (workspacePath) => {
      const result = await testServer(serverAt(plain), localDialer(), workspacePath);
      expect(result.status).toBe('error');
      expect(stages(result, 'failed')).toEqual(['workspace']);
      expect(stages(result, 'skipped')).toEqual(expect.arrayContaining(['echo', 'kill', 'cleanup']));
    },
  );

  it.each([
    ['fails at a workspace that the account cannot write', 0o755, 'error', ['workspace']],
    ['leaves nothing in a workspace that the account can write', 0o777, 'online', []],
  ])('%s', async (_rule, mode, status, failed) => {
    const workspace = mkdtempSync(path.join(tmpdir(), 'ops-center-workspace-'));
    afterThisTest(() => rmSync(workspace, { recursive: true }));
    chmodSync(workspace, mode);
    const result = await testServer(serverAt(plain), localDialer(), workspace);
    expect(result.status).toBe(status);
    expect(stages(result, 'failed')).toEqual(failed);
    const message = result.stages.find(({ name }) => name === 'workspace')?.message;
    expect(message).toContain(status === 'online' ? 'was written' : 'cannot be written');
    expect(readdirSync(workspace)).toEqual([]);
  });

  it.each([
    [
      'plain',
      plain,
      'A supervisor on the server is the parent of all processes',
      'Nothing of the test is left.',
    ],
    ['without Perl', python, 'A supervisor on the server is the parent', 'Nothing of the test is left.'],
    ['without Perl and Python', bare, 'Install Perl or Python 3.', 'A search found no process'],
  ])('is online on a host %s, and states what holds its processes', async (_name, server, kill, cleanup) => {
    const result = await testServer(serverAt(server));
    expect(result.status).toBe('online');
    const messageOf = (stage: string) => result.stages.find(({ name }) => name === stage)?.message;
    expect(messageOf('kill')).toContain(kill);
    expect(messageOf('cleanup')).toContain(cleanup);
  });

  it('is online through a jump server', async () => {
    const jumpServer = serverAt(jump, {}, { serverId: 'jump' });
    const through = serverAt(inner, { jump: 'jump' }, { jumpServers: new Map([['jump', jumpServer]]) });
    const result = await testServer(through);
    expect(result).toMatchObject({ status: 'online', hostKey: null });
    expect(stages(result, 'ok')).toEqual([...BEFORE, 'workspace', 'echo', 'kill', 'cleanup']);
  });
});
