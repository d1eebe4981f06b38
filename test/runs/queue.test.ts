import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { AppError } from '../../src/lib/errors.ts';
import type { Principal } from '../../src/http/principal.ts';
import type { NumberedEvent } from '../../src/runs/events.ts';
import type { RunRef } from '../../src/runs/run-encryption.ts';
import { fernetKey } from '../support/app.ts';
import { createDatabase } from '../support/database.ts';
import {
  createInstance,
  waitForExit,
  firstEvent,
  createPrincipal,
  submit,
  outputText,
  testUser,
  collectEvents,
  type Instance,
  type InstanceOptions,
} from './instance.ts';
import { processesOf } from './process-runner.ts';

let shared: { databaseUrl: string; encryptionKey: string };
let instances: Instance[];
/** Runs of {@link heldProgram} end when this file exists. */
let gate: string;
let folder: string;
let heldProgram: string;

beforeEach(async () => {
  shared = { databaseUrl: (await createDatabase()).appUrl, encryptionKey: fernetKey() };
  instances = [];
  folder = mkdtempSync(path.join(tmpdir(), 'ops-center-runs-'));
  gate = path.join(folder, 'gate');
  heldProgram = `while [ ! -e ${gate} ]; do sleep 0.02; done; echo done`;
});
afterEach(async () => {
  await Promise.all(instances.map((instance) => instance.close()));
  rmSync(folder, { recursive: true });
});

async function open(options: Partial<InstanceOptions> = {}): Promise<Instance> {
  const instance = createInstance({ ...shared, ...options });
  instances.push(instance);
  await instance.start();
  return instance;
}

const openGate = () => {
  writeFileSync(gate, '');
};
const isStarted = ({ event }: NumberedEvent) => event.type === 'phase' && event.phase === 'started';
const positions = (seen: readonly NumberedEvent[]) =>
  seen.flatMap(({ event }) => (event.type === 'phase' && event.phase === 'queued' ? [event.position] : []));

async function statuses({ runs }: Instance, principal: Principal): Promise<string[]> {
  const { data } = await runs.list(principal, { cursor: undefined, limit: 200 });
  return data.map(({ status }) => status);
}
const countOf = (all: readonly string[], one: string) => all.filter((status) => status === one).length;

describe('the queue', () => {
  it('starts as many runs as the limits allow and the others in order, and publishes their positions', async () => {
    const one = await open({ settings: { perServer: 1 } });
    const me = createPrincipal();
    const runs: RunRef[] = [];
    for (let at = 0; at < 4; at += 1) runs.push(await submit(one, me, at === 0 ? heldProgram : `echo ${at}`));
    const watched = runs.map((run) => collectEvents(one, run));
    expect(await statuses(one, me)).toEqual(['queued', 'queued', 'queued', 'running']);
    openGate();
    const seen = await Promise.all(watched);
    expect(seen.map(positions)).toEqual([[], [1], [2, 1], [3, 2, 1]]);
    const { data } = await one.runs.list(me, { cursor: undefined, limit: 10 });
    const starts = data.map(({ started_at: at }) => at);
    expect(starts).toEqual(starts.toSorted().reverse());
  });

  it('enforces the limits per user and per server over all processes', async () => {
    const settings = { perUser: 3, perServer: 2 };
    const [one, two] = [await open({ settings }), await open({ settings })];
    const me = createPrincipal();
    const runs = await Promise.all(
      Array.from({ length: 12 }, (_, at) =>
        submit(at % 2 === 0 ? one : two, me, heldProgram, at % 3 === 0 ? 'a' : 'b'),
      ),
    );
    const now = await statuses(one, me);
    expect([countOf(now, 'running'), countOf(now, 'queued')]).toEqual([3, 9]);
    openGate();
    let most = 0;
    const over = new AbortController();
    const counter = (async () => {
      while (!over.signal.aborted) most = Math.max(most, countOf(await statuses(two, me), 'running'));
    })();
    // Each exit is read in the process that does not hold the run.
    const exits = await Promise.all(runs.map((run, at) => waitForExit(at % 2 === 0 ? two : one, run)));
    over.abort();
    await counter;
    expect(new Set(exits.map(({ code }) => code))).toEqual(new Set([0]));
    expect(most).toBe(3);
  });

  it('does not delay the run of a user behind the many queued runs of another user', async () => {
    const one = await open({ settings: { perInstance: 2 } });
    const [many, few] = [createPrincipal(), createPrincipal()];
    const first = await submit(one, many, heldProgram);
    for (let at = 0; at < 20; at += 1) await submit(one, many, heldProgram, `server ${at}`);
    const run = await submit(one, few, 'echo mine');
    await one.runs.cancel(many, first.id, 'req_test');
    expect((await waitForExit(one, run)).code).toBe(0);
    expect(countOf(await statuses(one, many), 'queued')).toBeGreaterThan(17);
    openGate();
  });

  it('queues 64 runs of a user, refuses the next one and stores nothing of it', async () => {
    const one = await open({ settings: { perUser: 1 } });
    const me = createPrincipal();
    await submit(one, me, heldProgram);
    for (let at = 0; at < 64; at += 1) await submit(one, me, 'true');
    await expect(submit(one, me, 'true')).rejects.toMatchObject({ code: 'rate_limited', status: 429 });
    expect((await waitForExit(one, await submit(one, createPrincipal(), 'true'))).code).toBe(0);
    expect(await statuses(one, me)).toHaveLength(65);
    openGate();
  });

  it('continues in another process when the process of the queued runs is stopped', async () => {
    const settings = { perUser: 1 };
    const one = await open({ settings, leaseMs: 1_000 });
    const me = createPrincipal();
    const [going, queued] = [await submit(one, me, heldProgram), await submit(one, me, 'echo later')];
    await firstEvent(one, going, isStarted);
    const closing = one.close();
    instances = [];
    const two = await open({ settings, leaseMs: 1_000 });
    await closing;
    expect(await waitForExit(two, going)).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    const seen = await collectEvents(two, queued);
    expect(outputText(seen)).toBe('later\n');
    expect(seen.map(({ seq }) => seq)).toEqual(seen.map((_, at) => at + 1));
    expect(seen[0]?.event).toMatchObject({ phase: 'queued', position: 1 });
  });
});

describe('a queued run that may start', () => {
  const after: [string, (instance: Instance) => void, object][] = [
    [
      'is not started for a deleted or disabled user',
      ({ conditions }) => (conditions.user = undefined),
      { cause: 'cancelled' },
    ],
    [
      'is not started after its sign-in ended',
      ({ conditions }) => (conditions.isSignInValid = false),
      { cause: 'cancelled' },
    ],
    [
      'is not started below the Starter tier',
      ({ conditions }) => (conditions.user = testUser('any user', 'trial')),
      { cause: 'cancelled', message: 'Running code needs the starter tier or higher.' },
    ],
    [
      'is not started on a server that was paused or deleted in the meantime',
      ({ conditions }) => (conditions.refusal = new AppError('server_paused', 'The server is paused.')),
      { cause: 'infrastructure', message: 'The server is paused.' },
    ],
  ];
  it.each(after)('%s', async (_rule, change, expected) => {
    const one = await open({ settings: { perUser: 1 } });
    const me = createPrincipal();
    const mark = path.join(folder, 'started');
    await submit(one, me, heldProgram);
    const queued = await submit(one, me, `touch ${mark}`);
    change(one);
    openGate();
    expect(await waitForExit(one, queued)).toMatchObject({ code: null, cleanup: 'verified', ...expected });
    expect(() => {
      writeFileSync(mark, '', { flag: 'wx' });
    }).not.toThrow();
  });
});

describe('cancelling', () => {
  it('ends a run of another process', async () => {
    const [one, two] = [await open(), await open()];
    const me = createPrincipal();
    const run = await submit(one, me, `sleep 600 & echo begun; wait`);
    await firstEvent(two, run, ({ event }) => event.type === 'output');
    expect(processesOf(run.id).length).toBeGreaterThan(1);
    await two.runs.cancel(me, run.id, 'req_test');
    expect(await waitForExit(two, run)).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    expect(processesOf(run.id)).toEqual([]);
  });

  it('removes a run from the queue, from any process; a second call has no effect', async () => {
    const settings = { perUser: 1 };
    const [one, two] = [await open({ settings }), await open({ settings })];
    const me = createPrincipal();
    await submit(one, me, heldProgram);
    const queued = await submit(one, me, 'echo never');
    await two.runs.cancel(me, queued.id, 'req_test');
    expect(await waitForExit(two, queued)).toMatchObject({ cause: 'cancelled', code: null, durationMs: 0 });
    await two.runs.cancel(me, queued.id, 'req_test');
    expect(outputText(await collectEvents(one, queued))).toBe('');
    openGate();
  });

  it('and reading are refused for the runs of other users', async () => {
    const one = await open();
    const [me, other] = [createPrincipal(), createPrincipal()];
    const run = await submit(one, me, heldProgram);
    for (const call of [
      () => one.runs.cancel(other, run.id, 'req_test'),
      () => one.runs.get(other, run.id),
      () => one.runs.getProgress(other, run.id),
    ])
      await expect(call()).rejects.toMatchObject({ code: 'not_found' });
    expect(await statuses(one, other)).toEqual([]);
    expect(processesOf(run.id)).not.toEqual([]);
    openGate();
    expect((await waitForExit(one, run)).cause).toBe('exited');
  });

  it('happens at the end of the sign-in, for queued and running runs', async () => {
    const one = await open({ settings: { perUser: 1 } });
    const me = createPrincipal();
    const runs = [await submit(one, me, heldProgram), await submit(one, me, heldProgram)] as const;
    await firstEvent(one, runs[0], isStarted);
    one.activeWork.endUser(me.user.id);
    const exits = await Promise.all(runs.map((run) => waitForExit(one, run)));
    expect(exits.map(({ cause }) => cause)).toEqual(['cancelled', 'cancelled']);
    expect(exits[0]?.message).toMatch(/sign-in/);
    await one.activeWork.whenIdle();
  });
});
