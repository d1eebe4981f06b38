import { PassThrough, Readable } from 'node:stream';
import { describe, expect, it, jest } from '@jest/globals';
import fc from 'fast-check';
import { readSseEvents, type SseEvent } from '../../../src/gateway/upstream/sse-reader.ts';

const LIMITS = { eventBytes: 1_000, streamBytes: 100_000 };

async function eventsOf(chunks: Buffer[], eventBytes = LIMITS.eventBytes): Promise<SseEvent[]> {
  const received: SseEvent[] = [];
  const limits = { eventBytes, streamBytes: eventBytes === Infinity ? Infinity : LIMITS.streamBytes };
  for await (const events of readSseEvents(Readable.from(chunks), limits)) received.push(...events);
  return received;
}

/** Each line end before each other one ends an event. */
const EVENTS = [
  'data: {"a":"é\u{1F600}"}\n\n',
  ': comment\n\r',
  'event: x\r\ndata: 1\r\n\r\n',
  'data: 2\r\r',
  'data: 3\r\n\n',
  'data: 4\n\r\n',
  'data: 5\r\n\r',
  'data: 6\r\r\n',
];

describe('readSseEvents', () => {
  it('yields the same events for any chunk boundaries, their bytes unchanged', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...EVENTS)), fc.array(fc.nat(200)), async (whole, cuts) => {
        const bytes = Buffer.from(whole.join(''));
        const at = [...new Set([0, ...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length])].sort(
          (a, b) => a - b,
        );
        const chunks = at.slice(1).map((end, index) => bytes.subarray(at[index], end));
        const events = await eventsOf(chunks);
        expect(events.map((event) => event.bytes.toString())).toEqual(whole);
        expect(events.every(({ isComplete }) => isComplete)).toBe(true);
      }),
    );
  });

  it('yields bytes without a final blank line when the stream ends cleanly', async () => {
    const events = await eventsOf([Buffer.from('data: 1\n\ndata: 2')]);
    expect(events.map(({ bytes }) => bytes.toString())).toEqual(['data: 1\n\n', 'data: 2']);
  });

  it('yields an event as soon as its blank line is there', async () => {
    const body = new PassThrough();
    const events = readSseEvents(body, LIMITS);
    for (const text of ['data: 1\n\n', 'data: 2\r\n\r\n', 'data: 3\n\r\n']) {
      body.write(text);
      const { value } = (await events.next()) as { value: SseEvent[] };
      expect(value.map(({ bytes }) => bytes.toString())).toEqual([text]);
    }
    body.destroy();
  });

  it('copies and allocates a constant number of bytes per byte, even for a long event in small chunks', async () => {
    const countBytes = async (count: number) => {
      const spies = [jest.spyOn(Buffer, 'concat'), jest.spyOn(Buffer, 'allocUnsafe')] as const;
      const chunks = Array.from({ length: count }, () => Buffer.alloc(10, 'x'));
      await eventsOf(chunks, Infinity);
      const [concat, allocate] = spies;
      const copied = concat.mock.calls.flatMap(([list]) => list).reduce((sum, part) => sum + part.length, 0);
      const allocated = allocate.mock.calls.reduce((sum, [size]) => sum + size, 0);
      for (const spy of spies) spy.mockRestore();
      return copied + allocated;
    };
    expect(await countBytes(4_000)).toBeLessThan(10 * 10 * 4_000);
    expect(await countBytes(40_000)).toBeLessThan(10 * 10 * 40_000);
  });

  it('does not retain the chunks of an incomplete event, whose memory may be reused', async () => {
    const network = Buffer.alloc(8);
    async function* chunks() {
      for (const text of ['data: a', 'bc', '\n', '\ndata: ', '2\n\n']) {
        network.fill(0);
        yield network.subarray(0, network.write(text));
        await Promise.resolve();
      }
    }
    const received: string[] = [];
    for await (const events of readSseEvents(chunks(), LIMITS))
      received.push(...events.map(({ bytes }) => bytes.toString()));
    expect(received).toEqual(['data: abc\n\n', 'data: 2\n\n']);
  });

  it.each([
    ['an event without an end', Array.from({ length: 20 }, () => Buffer.alloc(100, 'x'))],
    ['an event of 1,001 lines', [Buffer.from('a\n'.repeat(300)), Buffer.from(`${'a\r\n'.repeat(701)}\n`)]],
    ['a longer stream', Array.from({ length: 101 }, () => Buffer.from('\n'.repeat(1_000)))],
  ])('throws on %s', async (_name, chunks) => {
    await expect(eventsOf(chunks)).rejects.toMatchObject({ code: 'upstream_malformed' });
  });

  it('reads an event of 1,000 lines', async () => {
    expect(await eventsOf([Buffer.from(`${'a\n'.repeat(1_000)}\n`)], 10_000)).toHaveLength(1);
  });

  it('lets other work proceed between 256 events that arrived together', async () => {
    const body = Readable.from([Buffer.from(':\n\n'.repeat(1_000))]);
    const seen: [number, number][] = [];
    let turns = 0;
    let isReading = true;
    const countTurns = (): void => {
      turns += 1;
      if (isReading) setImmediate(countTurns);
    };
    setImmediate(countTurns);
    for await (const events of readSseEvents(body, LIMITS)) seen.push([events.length, turns]);
    isReading = false;
    expect(seen.map(([count]) => count)).toEqual([256, 256, 256, 232]);
    expect(new Set(seen.map(([, turn]) => turn)).size).toBe(4);
  });

  it('keeps nothing of blank lines', async () => {
    const spy = jest.spyOn(Buffer, 'allocUnsafe');
    expect(await eventsOf([Buffer.from('\n\r\r\n\n\r'.repeat(1_000)), Buffer.from('\n')])).toEqual([]);
    expect(spy).not.toHaveBeenCalled();
    spy.mockRestore();
  });

  it('returns data, type and all other lines of each event, for every line end', async () => {
    const frames =
      ': hi\n\ndata: {"a":1}\n\nid: 7\r\nevent: e\ndata: x\ndata: y\r\n\ndata:[DONE]\r\revent\ndata\n\r\n';
    const events = await eventsOf([Buffer.from(frames)]);
    expect(events.map(({ data, type, otherLines }) => [data, type, otherLines])).toEqual([
      [undefined, '', [': hi']],
      ['{"a":1}', '', []],
      ['x\ny', 'e', ['id: 7', 'event: e']],
      ['[DONE]', '', []],
      ['', '', ['event']],
    ]);
    expect(Buffer.concat(events.map(({ bytes }) => bytes)).toString()).toBe(frames);
  });

  it('says whether a blank line ends the event', async () => {
    const events = await eventsOf([Buffer.from('data: é\r\n\r\ndata: 2\r\n')]);
    expect(events.map(({ data, isComplete }) => [data, isComplete])).toEqual([
      ['é', true],
      ['2', false],
    ]);
  });

  it('skips a byte order mark, as clients do', async () => {
    const [event] = await eventsOf([Buffer.from('\uFEFFdata: 1\n\n')]);
    expect(event?.data).toBe('1');
  });
});
