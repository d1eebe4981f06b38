import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { afterThisTest } from '../lib/ssh/servers.ts';
import { describeOn, sshHosts, type SshServer } from './hosts.ts';
import { SSH_STATE } from './host-processes.ts';

export interface SshdOptions {
  /** Lines of sshd_config. They precede the others, and the first value of a keyword counts. */
  lines: readonly string[];
  /** What PAM asks: nothing (`permit`) or the password (`unix`). By default PAM is not used. */
  pam?: 'permit' | 'unix';
  /** Files that sshd reads, by the name that `lines` use as `%<name>%`. */
  files?: Readonly<Record<string, string>>;
}

/** As {@link describeOn} for SSH, for tests that start an sshd of their own. */
export function describeWithSshd(name: string, tests: () => void): void {
  if (process.env['TEST_SSH_HOSTS'] === undefined) describeOn('ssh', name, tests);
}

/** Starts an OpenSSH server with other settings, for the accounts of {@link sshHosts}. It is stopped after the test. */
export async function startSshd({ lines, pam, files = {} }: SshdOptions): Promise<SshServer> {
  const { user, plain } = sshHosts();
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-sshd-'));
  chmodSync(folder, 0o755);
  afterThisTest(() => rmSync(folder, { recursive: true }));
  copyFileSync(`/var/lib/${user}/.ssh/authorized_keys`, path.join(folder, 'authorized_keys'));
  chmodSync(path.join(folder, 'authorized_keys'), 0o644);
  // Several lines with AllowUsers add up.
  const defaults = createDefaults(user, folder, pam !== undefined).filter(
    (line) => !line.startsWith('AllowUsers') || !lines.some((other) => other.startsWith('AllowUsers')),
  );
  let config = [...lines, ...defaults].join('\n');
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(path.join(folder, name), text);
    config = config.replaceAll(`%${name}%`, path.join(folder, name));
  }
  const file = path.join(folder, 'sshd_config');
  writeFileSync(file, `${config}\n`);
  const program = pam === undefined ? '/usr/sbin/sshd' : `/run/${user}/${user}-${pam}`;
  const port = await findFreePort();
  const sshd = spawn(program, ['-D', '-e', '-f', file, '-o', `ListenAddress=127.0.0.1:${port}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  afterThisTest(async () => {
    if (sshd.exitCode === null && sshd.kill()) await once(sshd, 'exit');
  });
  const log: string[] = [];
  for await (const line of createInterface(sshd.stderr)) {
    if (line.includes('Server listening on')) {
      sshd.stderr.resume();
      return { host: '127.0.0.1', port, hostKey: plain.hostKey };
    }
    log.push(line);
  }
  throw new Error(`sshd did not start: ${log.join(' ')}`);
}

function createDefaults(user: string, folder: string, usesPam: boolean): string[] {
  return [
    `HostKey ${path.join(SSH_STATE, 'host_plain')}`,
    `AllowUsers ${user} ${user}-expired ${user}-locked ${user}-renew`,
    // sshd reads it with the rights of the account, so that no other account could use the first one's.
    `AuthorizedKeysFile ${path.join(folder, 'authorized_keys')}`,
    'StrictModes no',
    'PidFile none',
    `UsePAM ${usesPam ? 'yes' : 'no'}`,
    'PasswordAuthentication yes',
    `KbdInteractiveAuthentication ${usesPam ? 'yes' : 'no'}`,
    'UseDNS no',
    'LogLevel VERBOSE',
  ];
}

async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
