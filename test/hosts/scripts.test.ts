import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describeOn, registerPrivateKey, sshHosts, type SshServer } from '../support/hosts.ts';

interface Described extends Record<'plain' | 'jump' | 'inner', SshServer> {
  user: string;
}

describeOn('ssh', 'the SSH servers of another checkout in an unreadable folder', () => {
  const ours = sshHosts();
  let checkout: string;
  let theirs: Described;
  const script = (action: string) =>
    execFileSync(path.join(checkout, 'test', 'hosts', 'ssh.sh'), [action], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  const state = (name: string) => path.join(checkout, '.data', 'test-hosts', 'ssh', name);

  beforeAll(() => {
    // mkdtemp makes it unreadable for other users.
    checkout = mkdtempSync(path.join(tmpdir(), 'checkout-'));
    mkdirSync(path.join(checkout, 'test'));
    cpSync(import.meta.dirname, path.join(checkout, 'test', 'hosts'), { recursive: true });
    script('up');
    theirs = JSON.parse(readFileSync(state('hosts.json'), 'utf8')) as Described;
    for (const key of ['ed25519', 'rsa', 'ecdsa', 'rsaPem'])
      registerPrivateKey(readFileSync(state(key), 'utf8'));
  }, 120_000);

  afterAll(() => {
    if (existsSync(checkout)) script('down');
    rmSync(checkout, { recursive: true, force: true });
  });

  /** Runs a command with the OpenSSH client, with the host keys in known_hosts. */
  function runOn(server: SshServer, key: string, options: readonly string[], command: string) {
    const args = [
      ...['-F', 'none', '-i', state(key), '-o', 'IdentitiesOnly=yes', '-o', 'BatchMode=yes'],
      ...['-o', `UserKnownHostsFile=${state('known_hosts')}`, '-o', 'StrictHostKeyChecking=yes'],
      ...options,
      ...['-p', String(server.port), `${theirs.user}@${server.host}`, command],
    ];
    return spawnSync('ssh', args, { encoding: 'utf8' });
  }

  function writeKnownHosts(servers: readonly (keyof Described & ('plain' | 'jump' | 'inner'))[]): void {
    const lines = servers.map((name) => {
      const { host, port } = theirs[name];
      const [type, key] = readFileSync(state(`host_${name}.pub`), 'utf8').split(' ');
      return `${port === 22 ? host : `[${host}]:${port}`} ${String(type)} ${String(key)}\n`;
    });
    writeFileSync(state('known_hosts'), lines.join(''));
  }

  it('run beside the servers of this checkout without interfering', () => {
    expect(theirs.user).not.toBe(ours.user);
    expect(theirs.plain.port).not.toBe(ours.plain.port);
    expect(theirs.jump.host).not.toBe(ours.jump.host);
    expect(theirs.plain.hostKey.fingerprint).not.toBe(ours.plain.hostKey.fingerprint);
  });

  it('accept the keys of their account and no other key', () => {
    writeKnownHosts(['plain']);
    for (const key of ['ed25519', 'rsa', 'ecdsa', 'rsaPem'])
      expect(runOn(theirs.plain, key, [], 'whoami').stdout).toBe(`${theirs.user}\n`);
    const refused = runOn(theirs.plain, 'other', [], 'whoami');
    expect(refused.status).toBe(255);
    expect(refused.stderr).toContain('Permission denied');
  });

  it('make the inner server reachable only through the jump host', () => {
    writeKnownHosts(['jump', 'inner']);
    const { host, port } = theirs.jump;
    const jump = [
      ...['ssh', '-F', 'none', '-i', state('ed25519'), '-o', 'IdentitiesOnly=yes', '-o', 'BatchMode=yes'],
      ...['-o', `UserKnownHostsFile=${state('known_hosts')}`, '-p', String(port), '-W', '%h:%p'],
      `${theirs.user}@${host}`,
    ].join(' ');
    const through = runOn(theirs.inner, 'ed25519', ['-o', `ProxyCommand=${jump}`], 'echo $SSH_CONNECTION');
    expect(through.stdout).toMatch(/^127\.0\.0\.1 \d+ 127\.0\.0\.1 22\n$/);
    // The plain server forwards no connections.
    writeKnownHosts(['plain', 'inner']);
    const plain = jump.replace(`-p ${port}`, `-p ${theirs.plain.port}`).replace(host, theirs.plain.host);
    expect(runOn(theirs.inner, 'ed25519', ['-o', `ProxyCommand=${plain}`], 'true').status).toBe(255);
  });

  it('leave only their keys on the machine after they are stopped', () => {
    script('down');
    expect(spawnSync('getent', ['passwd', theirs.user]).status).toBe(2);
    expect(existsSync(`/run/netns/${theirs.user}`)).toBe(false);
    expect(existsSync(`/var/lib/${theirs.user}`)).toBe(false);
    expect(existsSync(`/run/${theirs.user}`)).toBe(false);
    expect(spawnSync('pgrep', ['-f', checkout]).stdout.toString()).toBe('');
  });

  it('start again with the same keys', () => {
    script('up');
    const again = JSON.parse(readFileSync(state('hosts.json'), 'utf8')) as Described;
    expect(again.plain.hostKey).toEqual(theirs.plain.hostKey);
    theirs = again;
    writeKnownHosts(['plain']);
    expect(runOn(theirs.plain, 'ed25519', [], 'whoami').stdout).toBe(`${theirs.user}\n`);
  });
});
