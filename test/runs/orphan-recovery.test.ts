import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { RunRef } from '../../src/runs/run-encryption.ts';
import { fernetKey } from '../support/app.ts';
import { createDatabase } from '../support/stack.ts';
import { until } from '../support/until.ts';
import {
  createInstance,
  firstEvent,
  createPrincipal,
  submit,
  outputText,
  collectEvents,
  type Instance,
  type InstanceOptions,
} from './instance.ts';
import type { StartCommand } from './instance-process.ts';
import { processesOf } from './process-runner.ts';

const PROCESS = fileURLToPath(new URL('./instance-process.ts', import.meta.url));
const LEASE_MS = 2_000;
const FOR_EVER = 'echo begun; setsid sleep 600 & sleep 600';

let options: InstanceOptions;
let survivor: Instance;
let child: ChildProcess;

beforeEach(async () => {
  const { appUrl } = await createDatabase();
  options = {
    databaseUrl: appUrl,
    encryptionKey: fernetKey(),
    leaseMs: LEASE_MS,
    settings: { perUser: 2 },
  };
  survivor = createInstance(options);
  await survivor.runs.start();
  child = spawn(process.execPath, [PROCESS], {
    env: { PATH: '/usr/bin:/bin', RUNS_INSTANCE: JSON.stringify(options) },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
});
afterEach(async () => {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  await survivor.close();
});

async function startThere(...commands: StartCommand[]): Promise<RunRef[]> {
  const answers = createInterface({ input: child.stdout ?? process.stdin })[Symbol.asyncIterator]();
  const runs: RunRef[] = [];
  for (const command of commands) {
    child.stdin?.write(`${JSON.stringify(command)}\n`);
    const { value = '' } = (await answers.next()) as { value?: string };
    runs.push(JSON.parse(value) as RunRef);
  }
  return runs;
}

const hasSaid =
  (text: string) =>
  ({ news }: { news: { type: string; data?: Buffer } }) =>
    news.type === 'output' && String(news.data).includes(text);

describe('the runs of a process that is killed', () => {
  it('become lost, their programs end, and what was queued goes on elsewhere', async () => {
    const me = createPrincipal();
    const [first, second, queued] = await startThere(
      { principal: me, command: FOR_EVER },
      { principal: me, command: FOR_EVER },
      { principal: me, command: 'echo in another process' },
    );
    if (first === undefined || second === undefined || queued === undefined) throw new Error('not started');
    for (const run of [first, second]) {
      await firstEvent(survivor, run, hasSaid('begun'));
      expect(processesOf(run.id).length).toBeGreaterThan(1);
    }
    child.kill('SIGKILL');
    await once(child, 'exit');
    for (const run of [first, second]) {
      const seen = await collectEvents(survivor, run);
      expect(outputText(seen)).toBe('begun\n');
      expect(seen.at(-1)?.news).toMatchObject({ cause: 'lost', code: null, cleanup: 'verified' });
      expect(processesOf(run.id)).toEqual([]);
      expect(await survivor.runs.get(me.user, run.id)).toMatchObject({ status: 'finished', cause: 'lost' });
    }
    expect(outputText(await collectEvents(survivor, queued))).toBe('in another process\n');
  });

  it('are ended, but not said to be so, where their server was changed meanwhile', async () => {
    const [run] = await startThere({ principal: createPrincipal(), command: FOR_EVER });
    if (run === undefined) throw new Error('not started');
    await firstEvent(survivor, run, hasSaid('begun'));
    survivor.conditions.version = 2;
    child.kill('SIGKILL');
    const exit = (await collectEvents(survivor, run)).at(-1);
    expect(exit?.news).toMatchObject({ cause: 'lost', cleanup: 'unverified' });
    expect(processesOf(run.id)).toEqual([]);
  });

  it('end for whoever had seen more of them than was stored', async () => {
    const [run] = await startThere({ principal: createPrincipal(), command: FOR_EVER });
    if (run === undefined) throw new Error('not started');
    await firstEvent(survivor, run, hasSaid('begun'));
    child.kill('SIGKILL');
    const seen = await collectEvents(survivor, run, 1_000);
    expect(seen).toHaveLength(1);
    expect(seen[0]?.news).toMatchObject({ type: 'exit', cause: 'lost' });
  });
});

describe('a process that was away for longer than its lease', () => {
  it('ends what others have taken from it, and writes nothing into its history', async () => {
    const me = createPrincipal();
    const [run] = await startThere({
      principal: me,
      command: `${FOR_EVER} | while sleep 0.1; do echo more; done`,
    });
    if (run === undefined) throw new Error('not started');
    await firstEvent(survivor, run, hasSaid('more'));
    child.kill('SIGSTOP');
    const exit = (await collectEvents(survivor, run)).at(-1);
    expect(exit?.news).toMatchObject({ cause: 'lost' });
    const before = await survivor.runs.get(me.user, run.id);
    child.kill('SIGCONT');
    // It is of use again: it has noticed, and goes on with what comes.
    const [next] = await startThere({ principal: me, command: 'echo next' });
    if (next === undefined) throw new Error('not started');
    expect(outputText(await collectEvents(survivor, next))).toBe('next\n');
    expect(await survivor.runs.get(me.user, run.id)).toEqual(before);
    expect((await collectEvents(survivor, run)).at(-1)).toEqual(exit);
    await until(() => processesOf(run.id).length === 0);
  });
});

describe('runs that somebody keeps alive', () => {
  it('are nobody else’s, however long they take', async () => {
    const me = createPrincipal();
    const run = await submit(survivor, me, `sleep ${(3 * LEASE_MS) / 1_000}; echo done`);
    await startThere();
    const seen = await collectEvents(survivor, run);
    expect(outputText(seen)).toBe('done\n');
    expect(seen.at(-1)?.news).toMatchObject({ cause: 'exited', code: 0 });
  });
});
