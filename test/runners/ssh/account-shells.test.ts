import { describe, expect, it, jest } from '@jest/globals';
import { chmodSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import type { ExitEvent, Job, TargetServer } from '../../../src/runners/runner.ts';
import type { SshConfig } from '../../../src/lib/ssh/config.ts';
import { spawnSync } from 'node:child_process';
import { afterThisTest, neverAborted, serverAt } from '../../lib/ssh/servers.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';
import { itTogether } from '../../support/it-together.ts';
import { describeWithSshd, startSshd, type SshdOptions } from '../../support/sshd.ts';
import { until } from '../../support/until.ts';
import { createPath, removePrograms, type ChangePath } from './local-runs.ts';
import { createJob, LIMITS, openRunner, readAll, targetAt } from './ssh-runs.ts';

jest.setTimeout(90_000);

const NOT_READ = 'another program reads its input, so nothing of the run was sent';

describeOn('ssh', 'an account over SSH', () => {
  const { accounts, dropbear, user } = sshHosts();
  const homeOf = (account: string) => `/var/lib/${user}-${account}`;
  const serverOf = (account: string): TargetServer<SshConfig> =>
    targetAt(serverAt(accounts, { username: `${user}-${account}` }));

  const run = (server: TargetServer<SshConfig>, overrides: Partial<Job>) =>
    readAll(openRunner().run(server, createJob(overrides), LIMITS, neverAborted()));

  async function runsAndIsOnline(account: string): Promise<void> {
    const job = {
      program: { command: 'cat - "a!b"; printf "%s" "$A"; setsid sleep 1000 & exit 3' },
      stdin: Buffer.from('in\0put!'),
      files: [{ path: 'a!b', content: Buffer.from('file') }],
      env: { A: "it's \\0041 !" },
    };
    const [result, test] = await Promise.all([
      run(serverOf(account), job),
      openRunner().test(serverOf(account), neverAborted()),
    ]);
    expect(result.output).toBe("in\0put!fileit's \\0041 !");
    expect(result.exit).toMatchObject({ cause: 'exited', code: 3, cleanup: 'verified' });
    expect(test).toMatchObject({ status: 'online', hostKey: null });

    const stop = new AbortController();
    const endless = createJob({ program: { command: 'setsid sleep 1000 & echo ready; sleep 1000' } });
    const cancelled = await readAll(
      openRunner().run(serverOf(account), endless, LIMITS, stop.signal),
      (output) => output === 'ready\n' && stop.abort('cancelled'),
    );
    expect(cancelled.output).toBe('ready\n');
    expect(cancelled.exit).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
  }

  async function receivesNothing(account: string): Promise<void> {
    const owned = `${homeOf(account)}/owned`;
    afterThisTest(() => rmSync(owned, { force: true }));
    const commands = Buffer.from(`\ntouch ${owned}\n`);
    const job = {
      program: { command: `touch ${owned}` },
      stdin: commands,
      files: [{ path: 'file', content: commands }],
    };
    const startedMs = performance.now();
    const [result, test] = await Promise.all([
      run(serverOf(account), job),
      openRunner().test(serverOf(account), neverAborted()),
    ]);
    expect(performance.now() - startedMs).toBeLessThan(20_000);
    expect(result).toMatchObject({ output: '', phases: ' preparing' });
    expect(result.exit).toMatchObject({ cause: 'infrastructure', cleanup: 'verified' });
    expect(result.exit?.message).toContain(NOT_READ);
    expect(test).toMatchObject({ status: 'error', message: result.exit?.message });
    expect(test.stages.find(({ status }) => status === 'failed')?.name).toBe('permission');
    expect(existsSync(owned)).toBe(false);
  }

  itTogether(
    [
      ...['tcsh', 'csh', 'fish', 'busybox', 'slow'].map(
        (account) =>
          [`runs and ends programs and is online: ${account}`, () => runsAndIsOnline(account)] as const,
      ),
      ...['exec-bash', 'exec-fish', 'forced'].map(
        (account) =>
          [
            `whose shell reads the input receives nothing of the job, and the cause is named: ${account}`,
            () => receivesNothing(account),
          ] as const,
      ),
    ],
    90_000,
  );

  const limited = serverOf('limited');
  /** Writes a file in the home folder of `limited`, whose start file reads some. */
  const setting = (name: string, value: string) => {
    const file = `${homeOf('limited')}/${name}`;
    writeFileSync(file, value);
    afterThisTest(() => rmSync(file, { force: true }));
  };

  describe('with a PATH of its own', () => {
    const changePath = (change: ChangePath) => {
      const folder = createPath('/usr/bin/dash');
      chmodSync(folder, 0o755);
      change(folder);
      setting('path', folder);
    };

    it('names a missing program, in a test and in a run', async () => {
      changePath(removePrograms('awk'));
      const [{ exit }, test] = [await run(limited, {}), await openRunner().test(limited, neverAborted())];
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
      expect(exit?.message).toContain('needed to start and to end a run: awk. Install');
      expect(test).toMatchObject({ status: 'error', message: exit?.message });
    });

    it('is online with Perl in place of setsid', async () => {
      changePath(removePrograms('setsid'));
      expect(await openRunner().test(limited, neverAborted())).toMatchObject({ status: 'online' });
    });
  });

  describe('with a limit of processes', () => {
    /** The pids of the account's processes, without those of its connections. */
    const listProcesses = () =>
      spawnSync('ps', ['-u', `${user}-limited`, '-o', 'pid=,comm='], { encoding: 'utf8' })
        .stdout.split('\n')
        .filter((line) => !/^$| sshd$/.test(line))
        .map((line) => Number.parseInt(line, 10));
    /** Waits for the end of all processes of the account. Only an unverified cleanup may leave some, which are killed. */
    const untilNone = async (cleanup: ExitEvent['cleanup'] | undefined) => {
      if (cleanup !== 'verified') spawnSync('kill', ['-KILL', ...listProcesses().map(String)]);
      await until(listProcesses, (left) => left.length === 0, 30_000);
    };

    it.each([
      ['a supervisor', undefined, 'verified'],
      ['a search', `/run/${user}/bare-path`, 'unverified'],
    ])(
      'names a limit that is reached, and is verified only when nothing is left by %s',
      async (_name, searchPath, cleanup) => {
        const exits: (ExitEvent | undefined)[] = [];
        const runner = openRunner();
        if (searchPath !== undefined) setting('path', searchPath);
        // No search finds it.
        const command = 'cd /; (env -i setsid sleep 1000 </dev/null >/dev/null 2>&1 &)';
        for (const limit of [2, 4, 5, 6, 7, 8, 30]) {
          setting('limit', String(limit));
          const job = createJob({ program: { command } });
          const { exit } = await readAll(runner.run(limited, job, LIMITS, neverAborted()));
          if (exit?.cause === 'infrastructure') expect(exit.message).toContain('ulimit -u');
          // A watcher that cannot start what it needs ends the program.
          else if (exit?.cause === 'signal')
            expect([searchPath === undefined, exit.cleanup]).toEqual([false, cleanup]);
          else expect(exit?.cause).toBe('exited');
          exits.push(exit);
          await untilNone(exit?.cleanup);
        }
        expect(exits[0]?.message).toContain('may start no more processes');
        expect(exits.at(-1)).toMatchObject({ code: 0, cleanup });
      },
    );

    it('is named by a test', async () => {
      setting('limit', '2');
      const result = await openRunner().test(limited, neverAborted());
      expect(result).toMatchObject({
        status: 'error',
        message: expect.stringContaining('may start no more processes on the server (ulimit -u)'),
      });
      await untilNone('verified');
    });

    it.each([
      ['a supervisor', undefined, 'verified'],
      ['a search', `/run/${user}/bare-path`, 'unverified'],
    ])('that a program reaches is ended by %s', async (_name, searchPath, cleanup) => {
      setting('limit', '40');
      if (searchPath !== undefined) setting('path', searchPath);
      const command = 'i=0; while [ $i -lt 60 ]; do (env -i setsid sleep 1000 &); i=$((i + 1)); done';
      const { exit } = await run(limited, { program: { command } });
      expect(exit).toMatchObject({ cause: 'exited', cleanup });
      await untilNone(exit?.cleanup);
    });
  });

  it('of dropbear is online', async () => {
    const result = await openRunner().test(targetAt(serverAt(dropbear)), neverAborted());
    expect(result).toMatchObject({ status: 'online' });
  });
});

describeWithSshd('an account whose password has expired', () => {
  const { user, keys } = sshHosts();
  const withKey = { auth_method: 'key', password: null, private_key: keys.ed25519 };

  it.each<[string, SshdOptions, Record<string, unknown>]>([
    ['a password', { lines: [] }, {}],
    ['a key, as PAM says', { lines: [], pam: 'unix' }, withKey],
  ])('runs nothing, and the message names that cause, with %s', async (_name, options, changes) => {
    const server = targetAt(serverAt(await startSshd(options), { username: `${user}-renew`, ...changes }));
    const job = createJob({});
    const { exit } = await readAll(openRunner().run(server, job, LIMITS, neverAborted()));
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(exit?.message).toMatch(/password of the account (may have|has) expired/);
  });
});
