import { describe, expect, it } from '@jest/globals';
import { demultiplex } from '../../../src/runners/docker/demultiplex.ts';

const MIB = 2 ** 20;

function frame(type: number, data: Buffer, claimed = data.length): Buffer {
  const header = Buffer.alloc(8);
  header[0] = type;
  header.writeUInt32BE(claimed, 4);
  return Buffer.concat([header, data]);
}

async function* each(...pieces: Buffer[]): AsyncGenerator<Buffer, void> {
  for (const piece of pieces) yield await Promise.resolve(piece);
}

async function read(...pieces: Buffer[]) {
  const text = { stdout: '', stderr: '' };
  for await (const { stream, data } of demultiplex(each(...pieces))) text[stream] += data.toString('latin1');
  return text;
}

const STREAM = Buffer.concat([
  frame(1, Buffer.from('one ')),
  frame(2, Buffer.from('two ')),
  frame(1, Buffer.alloc(0)),
  frame(1, Buffer.from('three')),
]);

describe('the output of an attached container', () => {
  it('is taken apart in the same way wherever it was cut', async () => {
    for (let cut = 0; cut <= STREAM.length; cut += 1) {
      const pieces = [STREAM.subarray(0, cut), STREAM.subarray(cut)];
      expect(await read(...pieces)).toEqual({ stdout: 'one three', stderr: 'two ' });
    }
    const bytes = Array.from(STREAM, (_, index) => STREAM.subarray(index, index + 1));
    expect(await read(...bytes)).toEqual({ stdout: 'one three', stderr: 'two ' });
  });

  it('is passed on as it comes, however much a frame claims to hold', async () => {
    const claim = frame(1, Buffer.alloc(0), 2 ** 32 - 1);
    let given = 0;
    async function* endless() {
      yield await Promise.resolve(claim);
      for (;;) {
        given += 1;
        yield Buffer.alloc(MIB);
      }
    }
    const pieces = demultiplex(endless());
    for (let count = 1; count <= 64; count += 1) {
      expect((await pieces.next()).value?.data.length).toBe(MIB);
      expect(given).toBe(count);
    }
    await pieces.return();
  });

  it('is not asked for before the piece before it was taken', async () => {
    let given = 0;
    async function* counted() {
      for (; given < 10; given += 1) yield await Promise.resolve(frame(1, Buffer.from('x')));
    }
    const pieces = demultiplex(counted());
    await pieces.next();
    expect(given).toBe(0);
    await pieces.next();
    expect(given).toBe(1);
    await pieces.return();
  });

  for (const [what, bytes] of [
    ['a type that there is not', frame(3, Buffer.from('x'))],
    ['its own input', frame(0, Buffer.from('x'))],
    ['text without frames', Buffer.from('HTTP/1.1 200 OK\r\n\r\n')],
    ['a frame that is cut short', frame(1, Buffer.from('x'), 2)],
    ['a header that is cut short', Buffer.from([1, 0, 0])],
    ['headers without end and without data', Buffer.concat(Array(1000).fill(frame(1, Buffer.alloc(0))))],
  ] as const) {
    it(`fails on ${what}`, async () => {
      await expect(read(bytes)).rejects.toMatchObject({ code: 'upstream_malformed' });
    });
  }
});
