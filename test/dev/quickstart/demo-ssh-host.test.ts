import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { findSshd, startDemoSshHost, type DemoSshHost } from '../../../src/dev/quickstart/demo-ssh-host.ts';
import { listTcpListeners } from '../../../src/dev/quickstart/listeners.ts';
import { generateSshKeyPair } from '../../../src/lib/ssh/private-key.ts';

const sshd = findSshd();
let folder: string;
let host: DemoSshHost;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'ops-demo-host-'));
  host = await startHost('host');
});
afterAll(async () => {
  await host.stop();
  rmSync(folder, { recursive: true });
});

async function startHost(name: string): Promise<DemoSshHost> {
  return startDemoSshHost({
    sshd: sshd ?? '',
    folder: path.join(folder, name),
    logFile: path.join(folder, `${name}.log`),
    searchPath: `/opt/only-here:${process.env['PATH'] ?? ''}`,
  });
}

/** Runs OpenSSH's client. @param options of the client, before those of the host. */
function connect(target: DemoSshHost, options: string[], command: string[], key = target.privateKey) {
  const keyFile = path.join(folder, `key-${target.port}-${readdirSync(folder).length}`);
  writeFileSync(keyFile, key, { mode: 0o600 });
  const knownHosts = path.join(folder, 'known-hosts');
  const child = spawn(
    'ssh',
    [
      ...options,
      ...['-F', 'none', '-i', keyFile, '-p', String(target.port), '-l', target.username],
      ...['-o', 'BatchMode=yes', '-o', 'IdentitiesOnly=yes', '-o', 'StrictHostKeyChecking=accept-new'],
      ...['-o', `UserKnownHostsFile=${knownHosts}`, target.host, ...command],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const outcome = Promise.all([once(child, 'close'), text(child.stdout), text(child.stderr)]).then(
    ([[code], stdout, stderr]) => ({ code: code as number, stdout, stderr }),
  );
  return { child, outcome };
}

(sshd === undefined ? describe.skip : describe)('the demo SSH host', () => {
  it('runs programs as the user of this process, with its PATH', async () => {
    const { outcome } = connect(host, [], ['id -u; echo $PATH; exit 3']);
    const { code, stdout } = await outcome;
    // Start files of the account may add folders.
    expect([code, stdout]).toEqual([3, expect.stringMatching(`^${process.getuid?.()}\n.*/opt/only-here:`)]);
  });

  it('listens on loopback only', () => {
    expect(listTcpListeners(process.pid).filter(({ port }) => port === host.port)).toEqual([
      { host: '127.0.0.1', port: host.port },
    ]);
  });

  it('accepts one key, no other key and no password', async () => {
    const { outcome } = connect(host, [], ['true'], generateSshKeyPair().privateKey);
    const { code, stderr } = await outcome;
    expect([code, stderr]).toEqual([255, expect.stringMatching(/Permission denied \(publickey\)/)]);
  });

  it.each<[string, string[], string[], RegExp]>([
    ['a terminal', ['-tt'], ['true'], /PTY allocation request failed/],
    ['forwarding', ['-W', '127.0.0.1:1'], [], /administratively prohibited/],
    [
      'forwarding from its side',
      ['-R', '0:127.0.0.1:1', '-o', 'ExitOnForwardFailure=yes'],
      ['true'],
      /forwarding failed/,
    ],
  ])('refuses %s', async (_what, options, command, message) => {
    expect((await connect(host, options, command).outcome).stderr).toMatch(message);
  });

  it('has the key that it accepts in no file, and its files for their owner only', () => {
    const home = path.join(folder, 'host');
    expect(statSync(home).mode & 0o777).toBe(0o700);
    const lines = host.privateKey.split('\n').filter((line) => /^[\w+/=]{40,}$/.test(line));
    const secret = lines.at(-2) ?? '';
    expect(secret).not.toBe('');
    for (const name of readdirSync(home)) {
      expect(statSync(path.join(home, name)).mode & 0o077).toBe(0);
      expect(readFileSync(path.join(home, name), 'utf8')).not.toContain(secret);
    }
  });

  it('ends open connections and removes its files when it is stopped', async () => {
    const other = await startHost('other');
    // It ends when its output is closed.
    const { child, outcome } = connect(other, [], ['while echo ready; do sleep 1; done']);
    await once(child.stdout, 'readable');
    await other.stop();
    expect((await outcome).code).toBe(255);
    expect(existsSync(path.join(folder, 'other'))).toBe(false);
  });

  it('says what sshd says when it refuses its configuration', async () => {
    const refusing = path.join(folder, 'refusing-sshd');
    writeFileSync(refusing, '#!/bin/sh\necho "Missing privilege separation directory" >&2\nexit 255\n', {
      mode: 0o755,
    });
    const taken = path.join(folder, 'refused');
    mkdirSync(taken);
    await expect(
      startDemoSshHost({ sshd: refusing, folder: taken, logFile: `${taken}.log`, searchPath: '' }),
    ).rejects.toThrow('Missing privilege separation directory');
    expect(existsSync(taken)).toBe(false);
  });
});
