import { describe, expect, it } from '@jest/globals';
import { createRunExit, type NumberedEvent, type ViewerEvent } from '../../src/runs/events.ts';
import { createEventBuffer, type EventBuffer } from '../../src/runs/event-buffer.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const PIECE = 64 * KIB;
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

  it('keeps the head, and the end of each stream with one truncated before it', () => {
    const buffer = createEventBuffer();
    for (let at = 0; at < 5; at += 1) buffer.append(output(PIECE, 'stderr'));
    for (let at = 0; at < 100; at += 1) buffer.append(output(PIECE));
    buffer.append(output(10, 'stderr'));
    expect(bytesIn(buffer.head(0)).shown).toBe(768 * KIB);
    expect(buffer.head(3)[0]?.seq).toBe(4);
    const dropped = 100 * PIECE - (768 * KIB - 5 * PIECE) - 128 * KIB;
    expect(buffer.tail()).toMatchObject([
      { seq: 103, event: { type: 'truncated', stream: 'stdout', droppedBytes: dropped } },
      { seq: 104, event: { type: 'output', stream: 'stdout' } },
      { seq: 105, event: { type: 'output', stream: 'stdout' } },
      { seq: 106, event: { type: 'output', stream: 'stderr' } },
    ]);
    buffer.append(EXIT);
    expect(buffer.tail().at(-1)).toEqual({ seq: 107, event: EXIT });
    expect(buffer.total).toEqual({ stdout: 100 * PIECE, stderr: 5 * PIECE + 10 });
  });

  /** Bytes of `stdout` (positive) and `stderr` (negative), in order. */
  const orders: [name: string, sizes: number[]][] = [
    ['nothing', []],
    ['little output', [3, -4, 5]],
    ['exactly the head', Array.from({ length: 12 }, () => PIECE)],
    ['the head and the end of a stream', Array.from({ length: 14 }, () => PIECE)],
    ['one event more', Array.from({ length: 15 }, () => PIECE)],
    ['a flood, then a traceback', [...Array.from({ length: 200 }, () => PIECE), -500]],
    [
      'a traceback before a flood',
      [...Array.from({ length: 20 }, () => PIECE), -500, ...Array.from({ length: 200 }, () => PIECE)],
    ],
    ['floods in turn', Array.from({ length: 400 }, (_, at) => (at % 2 === 0 ? PIECE : -PIECE))],
    ['floods with rare errors', Array.from({ length: 400 }, (_, at) => (at % 50 === 0 ? -7 : PIECE))],
    [
      'events of odd sizes',
      Array.from({ length: 600 }, (_, at) => (at % 3 === 0 ? -1 - at * 11 : 1 + at * 37)),
    ],
    ['many single bytes', Array.from({ length: 40_000 }, (_, at) => (at % 5 === 0 ? -1 : 1))],
  ];
  describe.each(orders)('of %s', (_name, sizes) => {
    function fill() {
      const buffer = createEventBuffer();
      for (const bytes of sizes) buffer.append(output(Math.abs(bytes), bytes > 0 ? 'stdout' : 'stderr'));
      buffer.append(EXIT);
      return { buffer, kept: [...buffer.head(0), ...buffer.tail()] };
    }
    const total = sizes.reduce((bytes, size) => bytes + Math.abs(size), 0);

    it('keeps each byte or counts it, with one truncated for each stream at most', async () => {
      const { buffer, kept } = fill();
      for (const seen of [kept, await readAll(buffer)]) {
        const { shown, dropped } = bytesIn(seen);
        expect(shown + dropped).toBe(total);
        const seqs = seen.map(({ seq }) => seq);
        expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b));
        const truncated = seen.flatMap(({ event }) => (event.type === 'truncated' ? [event.stream] : []));
        expect(truncated).toHaveLength(new Set(truncated).size);
        expect(seen.at(-1)).toEqual({ seq: sizes.length + 1, event: EXIT });
      }
    });

    it('yields what it keeps to a late subscriber, from any number', async () => {
      const { buffer, kept } = fill();
      const outputs = (events: readonly NumberedEvent[]) =>
        events.filter(({ event }) => event.type !== 'truncated').map(({ seq }) => seq);
      for (const afterSeq of [0, 1, 12, Math.floor(sizes.length / 2), sizes.length]) {
        const seen = new Set(outputs(await readAll(buffer, afterSeq)));
        expect(outputs(kept).filter((seq) => seq > afterSeq && !seen.has(seq))).toEqual([]);
      }
    });
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
