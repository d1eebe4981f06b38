import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import express from 'express';
import { once } from 'node:events';
import { connect, type AddressInfo } from 'node:net';
import type { NumberedEvent } from '../../src/runs/events.ts';
import { streamEvents } from '../../src/runs/viewer.ts';
import { fernetKey } from '../support/app.ts';
import { measureRetainedBytes } from '../support/retained-bytes.ts';
import { createDatabase } from '../support/database.ts';
import { until } from '../support/until.ts';
import {
  createInstance,
  waitForExit,
  firstEvent,
  createPrincipal,
  submit,
  collectEvents,
  type Instance,
} from './instance.ts';

const IDLE_MS = 100;
const MB = 1_000_000;
let one: Instance;

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  one = createInstance({ databaseUrl: appUrl, encryptionKey: fernetKey() });
  await one.start();
});
afterAll(() => one.close());

const ask = (mb: number) => ({ limits: { max_output_bytes: (mb + 1) * MB } });

describe('a viewer that does not read', () => {
  it('neither delays the run nor fills the memory, and receives the number of dropped bytes', async () => {
    const me = createPrincipal();
    const run = await submit(one, me, `head -c ${100 * MB} /dev/zero`, 'one', ask(100));
    const stalled = one.runs.subscribe(run, 0, new AbortController().signal);
    const seen = [(await stalled.next()).value];
    const before = await measureRetainedBytes();
    // Another viewer reads up to the exit.
    expect(await waitForExit(one, run)).toMatchObject({ cause: 'exited', code: 0 });
    // Freed memory is returned with a delay.
    await until(measureRetainedBytes, (now) => now - before < 32 * MB);
    for await (const event of stalled) seen.push(event);
    let [shown, dropped] = [0, 0];
    for (const event of seen) {
      if (event?.event.type === 'output') shown += event.event.data.length;
      if (event?.event.type === 'truncated') dropped += event.event.droppedBytes;
    }
    expect(shown + dropped).toBe(100 * MB);
    expect(shown).toBeLessThan(6 * MB);
    expect(seen.at(-1)?.event).toMatchObject({ type: 'exit', code: 0 });
  });
});

describe('a viewer whose connection accepts no data', () => {
  it('is disconnected after the idle timeout', async () => {
    const shown = Promise.withResolvers<undefined>();
    const app = express().get('/', (_request, response, next) => {
      streamEvents(response, 'run_x', endless(), new AbortController().signal, IDLE_MS).then(() => {
        shown.resolve(undefined);
      }, next);
    });
    const server = app.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
    socket.pause().write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    await shown.promise;
    const closed = once(server, 'close');
    // Emits `close` when all connections are closed.
    server.close();
    await closed;
    socket.destroy();
  });
});

async function* endless(): AsyncGenerator<NumberedEvent, void> {
  const data = Buffer.alloc(64 * 1024);
  for (let seq = 1; ; seq += 1)
    yield await Promise.resolve({ seq, event: { type: 'output', stream: 'stdout', encoding: 'utf8', data } });
}

describe('a run without viewers', () => {
  it('continues up to its exit', async () => {
    const me = createPrincipal();
    const run = await submit(one, me, `echo begun; sleep 0.2; echo done`);
    await firstEvent(one, run, ({ event }) => event.type === 'output');
    const seen = await collectEvents(one, run, 3);
    expect(seen.at(-1)?.event).toMatchObject({ cause: 'exited', code: 0 });
  });
});
