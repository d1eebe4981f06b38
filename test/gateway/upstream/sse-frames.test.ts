import { Readable } from 'node:stream';
import { describe, expect, it, jest } from '@jest/globals';
import fc from 'fast-check';
import { parseSseEvents, readSseFrames } from '../../../src/gateway/upstream/sse-frames.ts';

async function framesOf(chunks: Buffer[], maxFrameBytes = 1_000): Promise<string[]> {
  const frames: string[] = [];
  for await (const frame of readSseFrames(Readable.from(chunks), maxFrameBytes))
    frames.push(frame.toString());
  return frames;
}

describe('readSseFrames', () => {
  it('yields every byte in complete frames for any chunk boundaries', async () => {
    const frame = fc.constantFrom(
      'data: {"a":"é\u{1F600}"}\n\n',
      ': comment\n\n',
      'event: x\r\ndata: 1\r\n\r\n',
      'data: 2\r\r',
    );
    await fc.assert(
      fc.asyncProperty(fc.array(frame), fc.array(fc.nat(200)), async (whole, cuts) => {
        const bytes = Buffer.from(whole.join(''));
        const at = [...new Set([0, ...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length])].sort(
          (a, b) => a - b,
        );
        const chunks = at.slice(1).map((end, index) => bytes.subarray(at[index], end));
        const frames = await framesOf(chunks);
        expect(frames.join('')).toBe(bytes.toString());
        for (const run of frames) expect(run).toMatch(/(\n\n|\r\n\r\n|\r\r)$/);
      }),
    );
  });

  it('yields bytes without a final blank line when the stream ends cleanly', async () => {
    expect(await framesOf([Buffer.from('data: 1\n\ndata: 2')])).toEqual(['data: 1\n\n', 'data: 2']);
  });

  it('copies and allocates a constant number of bytes per byte, even for a long event in small chunks', async () => {
    const countBytes = async (count: number) => {
      const spies = [jest.spyOn(Buffer, 'concat'), jest.spyOn(Buffer, 'allocUnsafe')] as const;
      const chunks = Array.from({ length: count }, () => Buffer.alloc(10, 'x'));
      await framesOf(chunks, Infinity);
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
    const frames: string[] = [];
    for await (const frame of readSseFrames(chunks() as unknown as Readable, 1_000))
      frames.push(frame.toString());
    expect(frames).toEqual(['data: abc\n\n', 'data: 2\n\n']);
  });

  it('throws on a frame without an end', async () => {
    const endless = Array.from({ length: 20 }, () => Buffer.alloc(100, 'x'));
    await expect(framesOf(endless)).rejects.toMatchObject({ code: 'upstream_malformed' });
  });
});

describe('parseSseEvents', () => {
  it('returns data, type and all other lines of each event, for every line end', () => {
    const frames =
      ': hi\n\ndata: {"a":1}\n\nid: 7\r\nevent: e\ndata: x\ndata: y\r\n\ndata:[DONE]\r\revent\ndata\n\r\n';
    const events = parseSseEvents(Buffer.from(frames));
    expect(events.map(({ data, type, otherLines }) => [data, type, otherLines])).toEqual([
      [undefined, '', [': hi']],
      ['{"a":1}', '', []],
      ['x\ny', 'e', ['id: 7', 'event: e']],
      ['[DONE]', '', []],
      ['', '', ['event']],
    ]);
    expect(Buffer.concat(events.map(({ bytes }) => bytes)).toString()).toBe(frames);
  });

  it('says whether a blank line ends the event', () => {
    const events = parseSseEvents(Buffer.from('data: é\r\n\r\ndata: 2\r\n'));
    expect(events.map(({ data, isComplete }) => [data, isComplete])).toEqual([
      ['é', true],
      ['2', false],
    ]);
  });

  it('skips a byte order mark, as clients do', () => {
    expect(parseSseEvents(Buffer.from('\uFEFFdata: 1\n\n'))[0]?.data).toBe('1');
  });
});
