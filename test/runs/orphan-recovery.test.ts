import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { RunRef } from '../../src/runs/run-encryption.ts';
import { compileCache } from '../support/compile-cache.ts';
import { fernetKey } from '../support/app.ts';
import { createDatabase } from '../support/database.ts';
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
const ENDLESS = 'echo begun; setsid sleep 600 & sleep 600';

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
  await survivor.start();
  child = spawn(process.execPath, [PROCESS], {
    env: { PATH: '/usr/bin:/bin', ...compileCache(), RUNS_INSTANCE: JSON.stringify(options) },
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

async function startInChild(...commands: StartCommand[]): Promise<RunRef[]> {
  const answers = createInterface({ input: child.stdout ?? process.stdin })[Symbol.asyncIterator]();
  const runs: RunRef[] = [];
  for (const command of commands) {
    child.stdin?.write(`${JSON.stringify(command)}\n`);
    const { value = '' } = (await answers.next()) as { value?: string };
    runs.push(JSON.parse(value) as RunRef);
  }
  return runs;
}

const hasOutput =
  (text: string) =>
  ({ event }: { event: { type: string; data?: Buffer } }) =>
    event.type === 'output' && String(event.data).includes(text);

describe('the runs of a killed process', () => {
  it('end as lost with their programs, and queued runs start in another process', async () => {
    const me = createPrincipal();
    const [first, second, queued] = await startInChild(
      { principal: me, command: ENDLESS },
      { principal: me, command: ENDLESS },
      { principal: me, command: 'echo in another process' },
    );
    if (first === undefined || second === undefined || queued === undefined) throw new Error('not started');
    for (const run of [first, second]) {
      await firstEvent(survivor, run, hasOutput('begun'));
      expect(processesOf(run.id).length).toBeGreaterThan(1);
    }
    child.kill('SIGKILL');
    await once(child, 'exit');
    for (const run of [first, second]) {
      const seen = await collectEvents(survivor, run);
      expect(outputText(seen)).toBe('begun\n');
      expect(seen.at(-1)?.event).toMatchObject({ cause: 'lost', code: null, cleanup: 'verified' });
      expect(processesOf(run.id)).toEqual([]);
      const view = await survivor.runs.get(me, run.id);
      expect(view).toMatchObject({
        status: 'finished',
        cause: 'lost',
        message: expect.stringMatching(/unknown/),
      });
      // Until the lease of the killed process has ended.
      const [startedMs, finishedMs] = [view.started_at, view.finished_at].map((time) =>
        Date.parse(time ?? ''),
      );
      const elapsedMs = (finishedMs ?? 0) - (startedMs ?? 0);
      expect(elapsedMs).toBeGreaterThan(LEASE_MS / 2);
      expect(view.duration_ms).toBeGreaterThan(LEASE_MS / 2);
      expect(view.duration_ms).toBeLessThanOrEqual(elapsedMs + 1);
      expect(seen.at(-1)?.event).toMatchObject({ durationMs: view.duration_ms });
    }
    expect(outputText(await collectEvents(survivor, queued))).toBe('in another process\n');
  });

  it('end with an unverified cleanup when their server has changed', async () => {
    const [run] = await startInChild({ principal: createPrincipal(), command: ENDLESS });
    if (run === undefined) throw new Error('not started');
    await firstEvent(survivor, run, hasOutput('begun'));
    survivor.conditions.version = 2;
    child.kill('SIGKILL');
    const exit = (await collectEvents(survivor, run)).at(-1);
    expect(exit?.event).toMatchObject({ cause: 'lost', cleanup: 'unverified' });
    expect(processesOf(run.id)).toEqual([]);
  });

  it('end for a viewer that had received more events than were stored', async () => {
    const [run] = await startInChild({ principal: createPrincipal(), command: ENDLESS });
    if (run === undefined) throw new Error('not started');
    await firstEvent(survivor, run, hasOutput('begun'));
    child.kill('SIGKILL');
    const seen = await collectEvents(survivor, run, 1_000);
    expect(seen).toHaveLength(1);
    expect(seen[0]?.event).toMatchObject({ type: 'exit', cause: 'lost' });
  });
});

describe('a process that was suspended for longer than its lease', () => {
  it('stops a run that another process has taken over, and writes nothing to its history', async () => {
    const me = createPrincipal();
    const [run] = await startInChild({
      principal: me,
      command: `${ENDLESS} | while sleep 0.1; do echo more; done`,
    });
    if (run === undefined) throw new Error('not started');
    await firstEvent(survivor, run, hasOutput('more'));
    child.kill('SIGSTOP');
    const exit = (await collectEvents(survivor, run)).at(-1);
    expect(exit?.event).toMatchObject({ cause: 'lost' });
    const before = await survivor.runs.get(me, run.id);
    child.kill('SIGCONT');
    // The resumed process starts new runs.
    const [next] = await startInChild({ principal: me, command: 'echo next' });
    if (next === undefined) throw new Error('not started');
    expect(outputText(await collectEvents(survivor, next))).toBe('next\n');
    expect(await survivor.runs.get(me, run.id)).toEqual(before);
    expect((await collectEvents(survivor, run)).at(-1)).toEqual(exit);
    await until(() => processesOf(run.id).length === 0);
  });
});

describe('runs with renewed leases', () => {
  it('are not taken over, however long they take', async () => {
    const me = createPrincipal();
    const run = await submit(survivor, me, `sleep ${(3 * LEASE_MS) / 1_000}; echo done`);
    await startInChild();
    const seen = await collectEvents(survivor, run);
    expect(outputText(seen)).toBe('done\n');
    expect(seen.at(-1)?.event).toMatchObject({ cause: 'exited', code: 0 });
  });
});
