import { afterEach, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import type { LocalRunnerOptions } from '../../../src/runners/local/index.ts';
import type { ExitEvent, ServerTestResult } from '../../../src/runners/runner.ts';
import { describeOn } from '../../support/hosts.ts';
import { listLeaks } from './leaks.ts';

/** An instance of the product. Its second argument is code to run before it uses the machine. */
const INSTANCE = `
  const [, running, prelude, options] = process.argv;
  const { localRunner, runLocally } = await import(running);
  const { localTarget } = await import(running.replace('running.ts', 'leaks.ts'));
  const runner = localRunner(JSON.parse(options));
  new Function(prelude)();
  const signal = new AbortController().signal;
  const ran = await runLocally(runner, { program: { command: 'echo hello' } });
  process.stdout.write(JSON.stringify({ ...ran, tested: await runner.test(localTarget(), signal) }));
`;
const AS_UNPRIVILEGED = 'process.setgroups([]); process.setgid(65534); process.setuid(65534);';

interface InstanceResult {
  text: string;
  exit: ExitEvent;
  tested: ServerTestResult;
}

/** Runs an instance. @param within a command that runs its arguments in a changed environment. */
async function runInstance(
  within: readonly string[],
  prelude: string,
  options: Partial<LocalRunnerOptions> = {},
): Promise<InstanceResult> {
  const running = path.join(import.meta.dirname, 'running.ts');
  const node = [
    process.execPath,
    '--input-type=module',
    '-e',
    INSTANCE,
    running,
    prelude,
    JSON.stringify(options),
  ];
  const [program = '', ...args] = [...within, ...node];
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  return JSON.parse(await text(child.stdout)) as InstanceResult;
}

/** A command that hides a part of the machine from the process that it runs. */
const hiding = (mount: string) => ['unshare', '--mount', 'sh', '-c', `${mount} && exec "$@"`, 'sh'];

function expectRefusal({ text: written, exit, tested }: InstanceResult, message: RegExp): void {
  expect(written).toBe('');
  expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
  expect(exit.message).toMatch(message);
  expect(tested).toMatchObject({ status: 'forbidden', message: exit.message });
  expect(tested.stages.map(({ name, status }) => `${name} ${status}`)).toEqual([
    ...['policy ok', 'permission failed', 'workspace skipped', 'echo skipped'],
    ...['kill skipped', 'cleanup skipped'],
  ]);
}

describeOn('local', 'local execution', () => {
  afterEach(() => expect(listLeaks()).toEqual([]));

  it('is available for root with control groups', async () => {
    const { text: written, exit, tested } = await runInstance([], '');
    expect([written, exit.code, tested.status]).toEqual(['hello\n', 0, 'online']);
  });

  it('is not available if the app is not root', async () => {
    expectRefusal(await runInstance([], AS_UNPRIVILEGED), /needs root/);
  });

  it('is not available without control groups', async () => {
    const without = hiding('mount -t tmpfs none /sys/fs/cgroup');
    expectRefusal(await runInstance(without, ''), /control groups.*memory and pids/);
  });

  // In version 2 of control groups one folder has all controllers.
  (existsSync('/sys/fs/cgroup/cpu') ? it : it.skip)(
    'is not available without the CPU controller if the operator limits CPUs',
    async () => {
      const without = hiding('for each in /sys/fs/cgroup/cpu*; do mount -t tmpfs none "$each"; done');
      const ceilings = { memoryBytes: null, cpus: 1, pids: null };
      expectRefusal(await runInstance(without, '', { ceilings }), /control groups.*memory, pids, and cpu/);
      expect((await runInstance(without, '')).exit.code).toBe(0);
    },
  );

  it('is not available if control groups are read-only, as in most containers', async () => {
    const readOnly = hiding(
      'for each in $(grep -oE " /sys/fs/cgroup[^ ]*" /proc/mounts); do mount -o remount,bind,ro "$each"; done',
    );
    expectRefusal(await runInstance(readOnly, ''), /control groups.*memory and pids/);
  });
});
