import { describe, expect, it } from '@jest/globals';
import { createRunExit, type NumberedEvent, type ViewerEvent } from '../../src/runs/events.ts';
import { createEventBuffer, type EventBuffer } from '../../src/runs/event-buffer.ts';

const MIB = 1024 * 1024;
const PIECE = 64 * 1024;
const EXIT = createRunExit('exited', null);

function output(bytes: number, stream: 'stdout' | 'stderr' = 'stdout'): ViewerEvent {
  return { type: 'output', stream, encoding: 'utf8', data: Buffer.alloc(bytes, 'x') };
}

async function readAll(
  buffer: EventBuffer,
  afterSeq = 0,
  signal = new AbortController().signal,
): Promise<NumberedEvent[]> {
  const seen: NumberedEvent[] = [];
  for await (const event of buffer.subscribe(afterSeq, signal)) seen.push(event);
  return seen;
}

function bytesIn(seen: readonly NumberedEvent[]) {
  let [shown, dropped] = [0, 0];
  for (const { event } of seen) {
    if (event.type === 'output') shown += event.data.length;
    if (event.type === 'truncated') dropped += event.droppedBytes;
  }
  return { shown, dropped };
}

describe('an event buffer', () => {
  it('numbers events from 1 and yields the same events to early and late subscribers, up to the exit', async () => {
    const buffer = createEventBuffer();
    const early = readAll(buffer);
    buffer.append({ type: 'phase', phase: 'started', position: null });
    buffer.append(output(3));
    const middle = readAll(buffer);
    buffer.append(EXIT);
    const [a, b, c] = await Promise.all([early, middle, readAll(buffer)]);
    expect(a.map(({ seq }) => seq)).toEqual([1, 2, 3]);
    expect(b).toEqual(a);
    expect(c).toEqual(a);
    expect(await readAll(buffer, 2)).toEqual(a.slice(2));
  });

  it('reports the dropped bytes of each stream to a late subscriber, and yields no event twice', async () => {
    const buffer = createEventBuffer();
    for (let at = 0; at < 400; at += 1) buffer.append(output(PIECE, at % 4 === 0 ? 'stderr' : 'stdout'));
    buffer.append(EXIT);
    const seen = await readAll(buffer);
    const { shown, dropped } = bytesIn(seen);
    expect(shown + dropped).toBe(400 * PIECE);
    expect(shown).toBeLessThanOrEqual(5 * MIB);
    expect(seen.filter(({ event }) => event.type === 'truncated')).toHaveLength(2);
    const seqs = seen.map(({ seq }) => seq);
    expect(seqs).toEqual([...new Set(seqs)].sort((x, y) => x - y));
    expect(seen.at(-1)).toEqual({ seq: 401, event: EXIT });
  });

  it('counts exactly the bytes that a slow subscriber missed', async () => {
    const buffer = createEventBuffer();
    buffer.append(output(PIECE));
    const viewer = buffer.subscribe(0, new AbortController().signal);
    const seen = [(await viewer.next()).value as NumberedEvent];
    for (let at = 0; at < 300; at += 1) buffer.append(output(PIECE));
    buffer.append(EXIT);
    for await (const event of viewer) seen.push(event);
    const { shown, dropped } = bytesIn(seen);
    expect(shown + dropped).toBe(301 * PIECE);
    expect(dropped).toBeGreaterThan(0);
  });

  it('limits the head, which is stored, and counts the bytes beyond it', () => {
    const buffer = createEventBuffer();
    for (let at = 0; at < 20; at += 1) buffer.append(output(PIECE));
    const stored = bytesIn(buffer.head(0));
    expect(stored.shown).toBe(MIB);
    expect(buffer.bytesBeyondHead()).toEqual({ stdout: 4 * PIECE, stderr: 0 });
    expect(buffer.head(3)[0]?.seq).toBe(4);
    expect(buffer.total).toEqual({ stdout: 20 * PIECE, stderr: 0 });
  });

  it('continues the numbers of the stored events of a previous holder', async () => {
    const buffer = createEventBuffer([{ seq: 1, event: { type: 'phase', phase: 'queued', position: 2 } }]);
    buffer.append({ type: 'phase', phase: 'started', position: null });
    buffer.append(EXIT);
    expect((await readAll(buffer)).map(({ seq }) => seq)).toEqual([1, 2, 3]);
  });

  it('ends a subscription when its signal aborts, and when the buffer is closed without an exit', async () => {
    const buffer = createEventBuffer();
    const leaving = new AbortController();
    const [aborted, closed] = [readAll(buffer, 0, leaving.signal), readAll(buffer)];
    leaving.abort();
    expect(await aborted).toEqual([]);
    buffer.close();
    expect(await closed).toEqual([]);
  });

  it('limits the number of events, so that single bytes do not fill the memory', async () => {
    const buffer = createEventBuffer();
    for (let at = 0; at < 50_000; at += 1) buffer.append(output(1));
    buffer.append(EXIT);
    const seen = await readAll(buffer);
    expect(seen.length).toBeLessThan(2 * 16_384 + 3);
    const { shown, dropped } = bytesIn(seen);
    expect(shown + dropped).toBe(50_000);
  });
});
