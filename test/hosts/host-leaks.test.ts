import { expect, it } from '@jest/globals';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { listHostLeaks } from '../support/host-leaks.ts';
import { describeOn, dockerHost, sshHosts } from '../support/hosts.ts';
import { listControlGroupFolders } from '../support/sandbox-leaks.ts';
import { until } from '../support/until.ts';

// The end of a test run fails on any leak that these functions list. Other test files may use the same hosts.

describeOn('ssh', 'a leak on the SSH servers', () => {
  const { user } = sshHosts();

  it.each([user, `${user}-tcsh`])(
    'is listed for a process of an account until it has ended: %s',
    async (name) => {
      const child = spawn('runuser', ['-u', name, '--', 'sleep', '987'], { stdio: 'ignore' });
      try {
        await until(async () =>
          (await listHostLeaks()).some((line) => /^ssh: process .*sleep 987/.test(line)),
        );
      } finally {
        child.kill('SIGTERM');
      }
      await once(child, 'exit');
      await until(async () => !(await listHostLeaks()).some((line) => line.includes('sleep 987')));
    },
  );

  it('is listed for a file in a world-writable folder', async () => {
    const folder = mkdtempSync('/tmp/left-');
    try {
      execFileSync('chown', [user, folder]);
      expect(await listHostLeaks()).toContain(`ssh: file ${folder}`);
    } finally {
      rmSync(folder, { recursive: true });
    }
    expect(await listHostLeaks()).not.toContain(`ssh: file ${folder}`);
  });

  it('is listed for a file in the home of the account', async () => {
    const home = execFileSync('getent', ['passwd', user], { encoding: 'utf8' }).split(':')[5] ?? '';
    const file = path.join(home, 'left-behind');
    writeFileSync(file, '');
    try {
      expect(await listHostLeaks()).toContain(`ssh: file ${file}`);
    } finally {
      rmSync(file);
    }
  });
});

describeOn('docker', 'a leak in the Docker engine', () => {
  const { socketPath, smallImage, command } = dockerHost();
  const docker = (...args: string[]) =>
    execFileSync(command, ['--host', `unix://${socketPath}`, ...args], { encoding: 'utf8' }).trim();

  it.each([
    ['container', () => docker('create', '--name', 'left-behind', smallImage), ['rm', 'left-behind']],
    ['volume', () => docker('volume', 'create', 'left-behind'), ['volume', 'rm', 'left-behind']],
    ['network', () => docker('network', 'create', 'left-behind'), ['network', 'rm', 'left-behind']],
  ])('is listed for a %s', async (kind, create, removal) => {
    const isListed = async () =>
      (await listHostLeaks()).some(
        (line) => line.startsWith(`docker: ${kind} `) && line.includes('left-behind'),
      );
    create();
    try {
      expect(await isListed()).toBe(true);
    } finally {
      docker(...removal);
    }
    expect(await isListed()).toBe(false);
  });
});

describeOn('local', 'a leak of a sandbox on this machine', () => {
  const isListed = async (part: string) =>
    (await listHostLeaks()).some((line) => line.startsWith('local: ') && line.includes(part));
  /** The folder of a control group as the process with that id would create it. */
  const groupOf = (creator: number) =>
    path.join(listControlGroupFolders()[0] ?? '', `ops-center-run-${creator}-left-behind`);

  it('is listed for a process of a sandbox until the process has ended', async () => {
    const id = 1_900_000_001;
    const child = spawn('sleep', ['986'], { uid: id, gid: id, cwd: '/', stdio: 'ignore' });
    try {
      await until(() => isListed('sleep 986'));
    } finally {
      child.kill('SIGTERM');
    }
    await once(child, 'exit');
    expect(await isListed('sleep 986')).toBe(false);
  });

  it('is listed for an orphaned process', async () => {
    const id = 1_900_000_002;
    const starter = 'sleep 985 >/dev/null 2>&1 & echo $!';
    const pid = Number(execFileSync('sh', ['-c', starter], { uid: id, gid: id, cwd: '/', encoding: 'utf8' }));
    try {
      await until(() => isListed('sleep 985'));
    } finally {
      process.kill(pid, 'SIGTERM');
    }
    await until(async () => !(await isListed('sleep 985')));
  });

  it('is listed for a control group, unless another checkout created it', async () => {
    const [ours, theirs] = [groupOf(process.pid), groupOf(2 ** 22 + 1)];
    for (const group of [ours, theirs]) mkdirSync(group);
    try {
      expect(await listHostLeaks()).toContain(`local: control group ${ours}`);
      expect(await isListed(theirs)).toBe(false);
    } finally {
      for (const group of [ours, theirs]) rmdirSync(group);
    }
    expect(await isListed(ours)).toBe(false);
  });

  it.each(['file', 'pipe', 'bait'])('is listed for a temporary folder of a %s', async (what) => {
    const folder = mkdtempSync(path.join(tmpdir(), `ops-center-${what}-${process.pid}-`));
    try {
      expect(await listHostLeaks()).toContain(`local: folder ${folder}`);
    } finally {
      rmSync(folder, { recursive: true });
    }
    expect(await isListed(folder)).toBe(false);
  });
});
