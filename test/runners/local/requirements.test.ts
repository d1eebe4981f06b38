import { afterEach, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import type { ExitEvent, ServerTestResult } from '../../../src/runners/runner.ts';
import { describeOn } from '../../support/hosts.ts';
import { listLeaks } from './leaks.ts';

/** An instance of the product; its second argument is what it does before it looks at the machine. */
const INSTANCE = `
  const [, running, prelude] = process.argv;
  const { localRunner, runLocally } = await import(running);
  const { localTarget } = await import(running.replace('running.ts', 'leaks.ts'));
  const runner = localRunner();
  new Function(prelude)();
  const signal = new AbortController().signal;
  const ran = await runLocally(runner, { program: { command: 'echo hello' } });
  process.stdout.write(JSON.stringify({ ...ran, tested: await runner.test(localTarget(), signal) }));
`;
const AS_NOBODY = 'process.setgroups([]); process.setgid(65534); process.setuid(65534);';

interface Seen {
  text: string;
  exit: ExitEvent;
  tested: ServerTestResult;
}

/** @param within a command that runs its arguments, in surroundings of its own. */
async function lookFrom(within: readonly string[], prelude: string): Promise<Seen> {
  const running = path.join(import.meta.dirname, 'running.ts');
  const node = [process.execPath, '--input-type=module', '-e', INSTANCE, running, prelude];
  const [program = '', ...args] = [...within, ...node];
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  return JSON.parse(await text(child.stdout)) as Seen;
}

/** Hides something of the machine from a process, and from what it starts. */
const hiding = (mount: string) => ['unshare', '--mount', 'sh', '-c', `${mount} && exec "$@"`, 'sh'];

function expectRefusal({ text: written, exit, tested }: Seen, complaint: RegExp): void {
  expect(written).toBe('');
  expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
  expect(exit.message).toMatch(complaint);
  expect(tested).toMatchObject({ status: 'forbidden', message: exit.message });
  expect(tested.stages.map(({ name, status }) => `${name} ${status}`)).toEqual([
    ...['policy ok', 'permission failed', 'workspace skipped', 'echo skipped'],
    ...['kill skipped', 'cleanup skipped'],
  ]);
}

describeOn('local', 'what the local runner needs of the machine', () => {
  afterEach(() => expect(listLeaks()).toEqual([]));

  it('is there for root, with control groups', async () => {
    const { text: written, exit, tested } = await lookFrom([], '');
    expect([written, exit.code, tested.status]).toEqual(['hello\n', 0, 'online']);
  });

  it('is not there for an app that is not root, which could give no program another user', async () => {
    expectRefusal(await lookFrom([], AS_NOBODY), /only root can give them one/);
  });

  it('is not there without control groups, without which nothing would bound memory and processes', async () => {
    const without = hiding('mount -t tmpfs none /sys/fs/cgroup');
    expectRefusal(await lookFrom(without, ''), /memory and processes are bounded.*control groups/);
  });

  it('is not there where control groups cannot be written, as in most containers', async () => {
    const readOnly = hiding(
      'for each in $(grep -oE " /sys/fs/cgroup[^ ]*" /proc/mounts); do mount -o remount,bind,ro "$each"; done',
    );
    expectRefusal(await lookFrom(readOnly, ''), /memory and processes are bounded.*control groups/);
  });
});
