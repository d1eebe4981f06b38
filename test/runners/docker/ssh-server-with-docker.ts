import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { TargetServer } from '../../../src/runners/runner.ts';
import { serverAt, withParsedConfig } from '../../lib/ssh/servers.ts';
import { SSH_STATE } from '../../support/host-processes.ts';
import { freePort } from '../../support/free-port.ts';
import { sshHosts, type SshServer } from '../../support/hosts.ts';

/** An SSH server on which commands find `sh`, the `docker` program of a test, and no other program. */
export interface SshServerWithDocker extends SshServer {
  /** The socket that `DOCKER_HOST` names on the server. */
  socketPath: string;
  /** A folder that the account may write to. */
  temporary: string;
  /** Replaces the account's .bashrc. */
  writeStartFile(script: string): Promise<void>;
  /** Replaces the program. @param script of a shell; it can use only what the shell itself has. */
  writeDocker(script: string, mode?: number): Promise<void>;
  /** Replaces the program by a link to another one. */
  linkDocker(program: string): Promise<void>;
  removeDocker(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts it with the account, the host key and the other settings of `plain` of {@link sshHosts}. */
export async function startSshServerWithDocker(): Promise<SshServerWithDocker> {
  const { plain } = sshHosts();
  const folder = await mkdtemp(path.join(tmpdir(), 'ops-docker-'));
  await chmod(folder, 0o755);
  const program = path.join(folder, 'docker');
  const temporary = path.join(folder, 'tmp');
  await mkdir(temporary);
  await chmod(temporary, 0o1777);
  await symlink('/bin/sh', path.join(folder, 'sh'));
  const socketPath = path.join(folder, 'docker.sock');
  const port = await freePort();
  const settings = await readFile(path.join(SSH_STATE, 'sshd-plain.conf'), 'utf8');
  const own = [
    `ListenAddress 127.0.0.1:${port}`,
    `PidFile ${folder}/sshd.pid`,
    `SetEnv PATH=${folder} HOME=${folder} TMPDIR=${temporary} DOCKER_HOST=unix://${socketPath}`,
  ];
  const others = settings.split('\n').filter((line) => !/^(ListenAddress|PidFile|SetEnv) /.test(line));
  const file = path.join(folder, 'sshd.conf');
  await writeFile(file, [...own, ...others].join('\n'), { mode: 0o600 });
  execFileSync('/usr/sbin/sshd', ['-t', '-f', file]);
  const server = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  const stopped = once(server, 'exit');
  for await (const line of createInterface(server.stderr)) if (line.includes('Server listening')) break;
  server.stderr.resume();

  const removeDocker = () => rm(program, { force: true });
  return {
    ...{ host: '127.0.0.1', port, hostKey: plain.hostKey, socketPath, temporary, removeDocker },
    writeStartFile: (script) => writeFile(path.join(folder, '.bashrc'), `${script}\n`),
    async writeDocker(script, mode = 0o755) {
      await removeDocker();
      await writeFile(program, `#!/bin/sh\n${script}\n`);
      await chmod(program, mode);
    },
    async linkDocker(target) {
      await removeDocker();
      await symlink(target, program);
    },
    async stop() {
      server.kill();
      await stopped;
      await rm(folder, { recursive: true });
    },
  };
}

/** The server as the one with the id `ssh-1` on the way to an engine of `user:one`. */
export function createSshTarget(server: SshServer): TargetServer {
  const ssh = withParsedConfig(serverAt(server, {}, { serverId: 'ssh-1', owner: 'user:one' }));
  return { ...ssh, workspacePath: null, jumpServers: new Map<string, never>() };
}
