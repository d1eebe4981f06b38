import { describe, expect, it } from '@jest/globals';
import { getEventListeners, once } from 'node:events';
import { AppError } from '../../src/lib/errors.ts';
import { createLog } from '../../src/lib/log.ts';
import type { ExitEvent, Job, Limits, RunEvent, Runner, TargetServer } from '../../src/runners/runner.ts';
import { supervise } from '../../src/runners/supervise.ts';

type Body = (signal: AbortSignal) => AsyncGenerator<RunEvent, void>;

const LIMITS: Limits = {
  timeoutMs: 600_000,
  maxOutputBytes: 10,
  memoryBytes: null,
  cpus: null,
  pids: null,
  network: null,
};
const STARTED: RunEvent = { type: 'phase', phase: 'started' };
const EXIT: ExitEvent = {
  type: 'exit',
  cause: 'exited',
  code: 0,
  signal: null,
  cleanup: 'verified',
  message: null,
};

/** Supervises a runner that only has `run`. */
function run(body: Body, limits: Partial<Limits> = {}, signal = new AbortController().signal) {
  const lines: string[] = [];
  const log = createLog('info', { write: (line) => void lines.push(line) });
  const unsupervised = { type: 'ssh', run: (_target, _job, _limits, stop) => body(stop) } as Runner;
  const runner = supervise(unsupervised, { log, stopGraceMs: 50 });
  const events = runner.run({} as TargetServer, {} as Job, { ...LIMITS, ...limits }, signal);
  return { events, lines };
}

async function readAll(events: AsyncIterable<RunEvent>): Promise<RunEvent[]> {
  const all = [];
  for await (const event of events) all.push(event);
  return all;
}

function output(text: string, stream: 'stdout' | 'stderr' = 'stdout'): RunEvent {
  return { type: 'output', stream, data: Buffer.from(text) };
}

function textOf(events: readonly RunEvent[]): string {
  return events.map((event) => (event.type === 'output' ? Buffer.from(event.data).toString() : '')).join('');
}

/** Ends as a runner should: once the signal is aborted, with its reason as the cause. */
async function* untilStopped(signal: AbortSignal): AsyncGenerator<RunEvent, void> {
  yield STARTED;
  if (!signal.aborted) await once(signal, 'abort');
  yield { ...EXIT, cause: signal.reason as 'timeout', code: null };
}

describe('a supervised run', () => {
  it('passes on the events of the runner in order', async () => {
    const events = [STARTED, output('a'), output('b', 'stderr'), EXIT];
    const { events: received } = run(async function* () {
      yield* events;
      await Promise.resolve();
    });
    expect(await readAll(received)).toEqual(events);
  });

  it('ends with the first exit and emits nothing after it', async () => {
    const { events } = run(async function* () {
      yield EXIT;
      await Promise.resolve();
      yield output('late');
      yield { ...EXIT, code: 1 };
    });
    expect(await readAll(events)).toEqual([EXIT]);
  });

  it('is lost when the runner ends without an exit', async () => {
    const { events } = run(async function* () {
      yield STARTED;
      await Promise.resolve();
    });
    expect((await readAll(events)).at(-1)).toMatchObject({
      cause: 'lost',
      code: null,
      cleanup: 'unverified',
    });
  });

  it('ends with the cause infrastructure when the runner throws, and logs it', async () => {
    const { events, lines } = run(async function* () {
      yield STARTED;
      await Promise.resolve();
      throw new Error('secret words of a library');
    });
    const exit = (await readAll(events)).at(-1);
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'unverified' });
    expect(JSON.stringify(exit)).not.toContain('secret words');
    expect(lines.join('')).toContain('a runner failed');
  });

  it('passes on the detail of an AppError', async () => {
    // eslint-disable-next-line require-yield
    const { events } = run(async function* () {
      await Promise.resolve();
      throw new AppError('upstream_unreachable', 'It is away.');
    });
    expect((await readAll(events)).at(-1)).toMatchObject({ cause: 'infrastructure', message: 'It is away.' });
  });

  it('ends with the cause of the stop when the runner throws after it', async () => {
    const caller = new AbortController();
    const { events } = run(
      async function* (signal) {
        yield STARTED;
        await once(signal, 'abort');
        throw new Error('cut off');
      },
      {},
      caller.signal,
    );
    await events.next();
    caller.abort('cancelled');
    expect(await readAll(events)).toMatchObject([{ cause: 'cancelled', cleanup: 'unverified' }]);
  });
});

describe('the output limit', () => {
  it('passes exactly the allowed number of bytes of both streams together', async () => {
    const { events } = run(async function* (signal) {
      yield output('123456');
      yield output('7890', 'stderr');
      expect(signal.aborted).toBe(false);
      yield output('x');
      expect(signal.reason).toBe('output_limit');
      yield output('y');
      yield { ...EXIT, cause: 'output_limit' as const };
      await Promise.resolve();
    });
    const received = await readAll(events);
    expect(textOf(received)).toBe('1234567890');
    expect(received.at(-1)).toMatchObject({ cause: 'output_limit' });
  });

  it('truncates the chunk that exceeds it', async () => {
    const { events } = run(async function* () {
      yield output('12345678901234');
      yield { ...EXIT, cause: 'output_limit' as const };
      await Promise.resolve();
    });
    expect(textOf(await readAll(events))).toBe('1234567890');
  });

  it('is reported even if the program ended by itself meanwhile, since output was lost', async () => {
    const { events } = run(async function* () {
      yield output('12345678901');
      yield EXIT;
      await Promise.resolve();
    });
    expect((await readAll(events)).at(-1)).toEqual({ ...EXIT, cause: 'output_limit' });
  });

  it('does not replace the cause lost', async () => {
    const { events } = run(async function* () {
      yield output('12345678901');
      yield { ...EXIT, cause: 'lost' as const, code: null };
      await Promise.resolve();
    });
    expect((await readAll(events)).at(-1)).toMatchObject({ cause: 'lost' });
  });
});

describe('stopping a supervised run', () => {
  it('aborts the runner after the timeout', async () => {
    const { events } = run(untilStopped, { timeoutMs: 1 });
    expect((await readAll(events)).at(-1)).toMatchObject({ cause: 'timeout' });
  });

  it('supports a timeout above the maximum of a timer', async () => {
    const { events } = run(
      async function* (signal) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        yield { ...EXIT, cause: signal.aborted ? 'timeout' : 'exited' };
      },
      { timeoutMs: 2 ** 40 },
    );
    expect(await readAll(events)).toEqual([EXIT]);
  });

  it('passes on a stop cause of the caller, and treats other reasons as cancelled', async () => {
    for (const [reason, cause] of [
      ['timeout', 'timeout'],
      [new Error('closing'), 'cancelled'],
    ]) {
      const caller = new AbortController();
      const { events } = run(untilStopped, {}, caller.signal);
      await events.next();
      caller.abort(reason);
      expect(await readAll(events)).toMatchObject([{ cause }]);
    }
  });

  it('keeps the first cause', async () => {
    const caller = new AbortController();
    const { events } = run(untilStopped, { timeoutMs: 1 }, caller.signal);
    await events.next();
    caller.abort('cancelled');
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await readAll(events)).toMatchObject([{ cause: 'cancelled' }]);
  });

  it('does not start a run that was cancelled before', async () => {
    let isStarted = false;
    const { events } = run(
      // eslint-disable-next-line require-yield
      async function* () {
        isStarted = true;
        await Promise.resolve();
      },
      {},
      AbortSignal.abort('cancelled'),
    );
    expect(await readAll(events)).toMatchObject([{ cause: 'cancelled', cleanup: 'verified' }]);
    expect(isStarted).toBe(false);
  });

  it('happens when the reader leaves, and the reader waits for the cleanup', async () => {
    const steps: unknown[] = [];
    const { events } = run(async function* (signal) {
      yield STARTED;
      await Promise.resolve();
      steps.push(signal.reason);
      yield output('late');
      steps.push('cleaned up');
      yield EXIT;
    });
    for await (const event of events) if (event.type === 'phase') break;
    expect(steps).toEqual(['cancelled', 'cleaned up']);
  });

  it('happens when the reader leaves during a read', async () => {
    const { events } = run(untilStopped);
    await events.next();
    const reading = events.next();
    await events.return();
    expect((await reading).value).toMatchObject({ type: 'exit', cause: 'cancelled' });
  });

  it('happens when an error is thrown into the run', async () => {
    const { events } = run(untilStopped);
    await events.next();
    await expect(events.throw(new Error('reader'))).rejects.toThrow('reader');
  });

  it('does not abort the runner once the run has ended', async () => {
    const caller = new AbortController();
    let stop: AbortSignal | undefined;
    const { events } = run(
      async function* (signal) {
        stop = signal;
        yield EXIT;
        await Promise.resolve();
      },
      {},
      caller.signal,
    );
    expect((await events.next()).value).toEqual(EXIT);
    caller.abort('cancelled');
    await events.return();
    expect(stop?.aborted).toBe(false);
    expect(getEventListeners(caller.signal, 'abort')).toEqual([]);
  });

  it('ends even if the runner never ends', async () => {
    const { events } = run(
      async function* () {
        yield STARTED;
        await new Promise(() => undefined);
      },
      { timeoutMs: 1 },
    );
    expect(await readAll(events)).toMatchObject([
      STARTED,
      { cause: 'timeout', code: null, cleanup: 'unverified' },
    ]);
  });

  it('ends even if the runner keeps emitting events', async () => {
    const { events } = run(
      async function* () {
        for (;;) {
          yield output('');
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      },
      { timeoutMs: 1 },
    );
    expect(await readAll(events)).toMatchObject([{ cause: 'timeout', cleanup: 'unverified' }]);
  });

  it('does not count the time in which the reader is busy', async () => {
    const caller = new AbortController();
    const { events } = run(
      async function* (signal) {
        yield STARTED;
        yield output('1');
        yield output('2');
        yield { ...EXIT, cause: signal.reason as 'cancelled' };
        await Promise.resolve();
      },
      {},
      caller.signal,
    );
    await events.next();
    caller.abort('cancelled');
    await new Promise((resolve) => setTimeout(resolve, 100));
    const received = await readAll(events);
    expect(textOf(received)).toBe('12');
    expect(received.at(-1)).toEqual({ ...EXIT, cause: 'cancelled' });
  });
});
