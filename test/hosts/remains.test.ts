import { expect, it } from '@jest/globals';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { lookAtHosts } from '../support/host-remains.ts';
import { describeOn, dockerHost, sshHosts } from '../support/hosts.ts';
import { until } from '../support/until.ts';

// The run that ends last fails on what these looks name. Other test files may be at work on the same hosts.

describeOn('ssh', 'What tests leave on the SSH servers', () => {
  const { user } = sshHosts();

  it('is named when it is a process of the account, and no longer when that has ended', async () => {
    const child = spawn('runuser', ['-u', user, '--', 'sleep', '987'], { stdio: 'ignore' });
    try {
      await until(async () => (await lookAtHosts()).some((line) => /^ssh: process .*sleep 987/.test(line)));
    } finally {
      child.kill('SIGTERM');
    }
    await once(child, 'exit');
    await until(async () => !(await lookAtHosts()).some((line) => line.includes('sleep 987')));
  });

  it('is named when it is a file in a folder for everybody', async () => {
    const folder = mkdtempSync('/tmp/left-');
    try {
      execFileSync('chown', [user, folder]);
      expect(await lookAtHosts()).toContain(`ssh: file ${folder}`);
    } finally {
      rmSync(folder, { recursive: true });
    }
    expect(await lookAtHosts()).not.toContain(`ssh: file ${folder}`);
  });

  it('is named when it is a file in the home of the account', async () => {
    const home = execFileSync('getent', ['passwd', user], { encoding: 'utf8' }).split(':')[5] ?? '';
    const file = path.join(home, 'left-behind');
    writeFileSync(file, '');
    try {
      expect(await lookAtHosts()).toContain(`ssh: file ${file}`);
    } finally {
      rmSync(file);
    }
  });
});

describeOn('docker', 'What tests leave in the engine', () => {
  const { socketPath, smallImage, command } = dockerHost();
  const docker = (...args: string[]) =>
    execFileSync(command, ['--host', `unix://${socketPath}`, ...args], { encoding: 'utf8' }).trim();

  it.each([
    ['container', () => docker('create', '--name', 'left-behind', smallImage), ['rm', 'left-behind']],
    ['volume', () => docker('volume', 'create', 'left-behind'), ['volume', 'rm', 'left-behind']],
    ['network', () => docker('network', 'create', 'left-behind'), ['network', 'rm', 'left-behind']],
  ])('is named when it is a %s', async (kind, leave, removal) => {
    const isNamed = async () =>
      (await lookAtHosts()).some(
        (line) => line.startsWith(`docker: ${kind} `) && line.includes('left-behind'),
      );
    leave();
    try {
      expect(await isNamed()).toBe(true);
    } finally {
      docker(...removal);
    }
    expect(await isNamed()).toBe(false);
  });
});
