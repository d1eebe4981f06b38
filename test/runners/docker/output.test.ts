import { describe, expect, it } from '@jest/globals';
import { demultiplex } from '../../../src/runners/docker/output.ts';

const MIB = 2 ** 20;

function frame(type: number, data: Buffer, claimed = data.length): Buffer {
  const header = Buffer.alloc(8);
  header[0] = type;
  header.writeUInt32BE(claimed, 4);
  return Buffer.concat([header, data]);
}

async function* toStream(...chunks: Buffer[]): AsyncGenerator<Buffer, void> {
  for (const chunk of chunks) yield await Promise.resolve(chunk);
}

async function read(...chunks: Buffer[]) {
  const text = { stdout: '', stderr: '' };
  for await (const { stream, data } of demultiplex(toStream(...chunks)))
    text[stream] += data.toString('latin1');
  return text;
}

const STREAM = Buffer.concat([
  frame(1, Buffer.from('one ')),
  frame(2, Buffer.from('two ')),
  frame(1, Buffer.alloc(0)),
  frame(1, Buffer.from('three')),
]);

describe('demultiplex', () => {
  it('splits the stream in the same way at any chunk boundary', async () => {
    for (let cut = 0; cut <= STREAM.length; cut += 1) {
      const chunks = [STREAM.subarray(0, cut), STREAM.subarray(cut)];
      expect(await read(...chunks)).toEqual({ stdout: 'one three', stderr: 'two ' });
    }
    const bytes = Array.from(STREAM, (_, index) => STREAM.subarray(index, index + 1));
    expect(await read(...bytes)).toEqual({ stdout: 'one three', stderr: 'two ' });
  });

  it('passes data on as it arrives, regardless of the length that a frame claims', async () => {
    const claim = frame(1, Buffer.alloc(0), 2 ** 32 - 1);
    let readCount = 0;
    async function* endless() {
      yield await Promise.resolve(claim);
      for (;;) {
        readCount += 1;
        yield Buffer.alloc(MIB);
      }
    }
    const chunks = demultiplex(endless());
    for (let count = 1; count <= 64; count += 1) {
      expect((await chunks.next()).value?.data.length).toBe(MIB);
      expect(readCount).toBe(count);
    }
    await chunks.return();
  });

  it('does not read a chunk before the previous one was taken', async () => {
    let readCount = 0;
    async function* counted() {
      for (; readCount < 10; readCount += 1) yield await Promise.resolve(frame(1, Buffer.from('x')));
    }
    const chunks = demultiplex(counted());
    await chunks.next();
    expect(readCount).toBe(0);
    await chunks.next();
    expect(readCount).toBe(1);
    await chunks.return();
  });

  for (const [what, bytes] of [
    ['an unknown type', frame(3, Buffer.from('x'))],
    ['a frame of standard input', frame(0, Buffer.from('x'))],
    ['text without frames', Buffer.from('HTTP/1.1 200 OK\r\n\r\n')],
    ['a truncated frame', frame(1, Buffer.from('x'), 2)],
    ['a truncated header', Buffer.from([1, 0, 0])],
    ['endless headers without data', Buffer.concat(Array(1000).fill(frame(1, Buffer.alloc(0))))],
  ] as const) {
    it(`fails on ${what}`, async () => {
      await expect(read(bytes)).rejects.toMatchObject({ code: 'upstream_malformed' });
    });
  }
});
