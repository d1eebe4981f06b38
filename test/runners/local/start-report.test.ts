import { afterEach, describe, expect, it, jest } from '@jest/globals';
import { PassThrough, Readable } from 'node:stream';
import { readStartReport, readStatusLines } from '../../../src/runners/local/start-report.ts';

afterEach(() => void jest.useRealTimers());

describe('the report of a sandbox', () => {
  it.each([
    ['in one piece', ['started\n'], 'started', false],
    ['byte by byte', Array.from('interpreter\n'), 'interpreter', false],
    ['without an end of line', ['started'], 'failed', true],
    ['with another word', ['begun\n'], 'failed', true],
    ['with two lines', ['started\nstarted\n'], 'failed', true],
    ['that is empty', [], 'failed', true],
    ['that begins like a valid one', [`started${'\0'.repeat(64)}`], 'failed', true],
  ])('is accepted if it is exactly one known word: %s', async (_name, chunks, result, isKilled) => {
    const kill = jest.fn();
    const report = Readable.from(
      chunks.map((chunk) => Buffer.from(chunk)),
      { objectMode: false },
    );
    expect(await readStartReport(report, kill)).toBe(result);
    expect(kill).toHaveBeenCalledTimes(isKilled ? 1 : 0);
    expect(report.destroyed).toBe(true);
  });

  it('is closed after 64 bytes, and the sandbox is killed', async () => {
    let readBytes = 0;
    const endless = new Readable({
      highWaterMark: 1,
      read() {
        readBytes += 32;
        this.push(Buffer.alloc(32));
      },
    });
    const kill = jest.fn();
    expect(await readStartReport(endless, kill)).toBe('failed');
    expect(kill).toHaveBeenCalledTimes(1);
    expect(endless.destroyed).toBe(true);
    expect(readBytes).toBeLessThanOrEqual(128);
  });

  it('is awaited for 60 s, then the sandbox is killed', async () => {
    jest.useFakeTimers();
    const silent = new PassThrough();
    const kill = jest.fn();
    const report = readStartReport(silent, kill);
    silent.write('star');
    jest.advanceTimersByTime(59_999);
    expect(silent.destroyed).toBe(false);
    jest.advanceTimersByTime(1);
    expect(await report).toBe('late');
    expect(kill).toHaveBeenCalledTimes(1);
  });
});

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = [];
  for await (const item of items) collected.push(item);
  return collected;
}

describe('the status of bwrap', () => {
  it('is read line by line, also if lines are cut', async () => {
    const chunks = ['{"child-', 'pid": 7}\n{"exit', '-code": 3}\n'].map((chunk) => Buffer.from(chunk));
    const lines = await collect(readStatusLines(Readable.from(chunks)));
    expect(lines).toEqual([{ 'child-pid': 7 }, { 'exit-code': 3 }]);
  });

  it.each([
    ['one endless line', Buffer.alloc(1_024)],
    ['endless lines', Buffer.from('{"child-pid": 1}\n')],
  ])('is refused if it is longer than that of bwrap: %s', async (_name, chunk) => {
    let chunkCount = 0;
    const endless = Readable.from(
      (function* () {
        for (;;) {
          chunkCount += 1;
          yield chunk;
        }
      })(),
    );
    await expect(collect(readStatusLines(endless))).rejects.toThrow(/too long/);
    expect(chunkCount * chunk.length).toBeLessThan(64_000);
  });
});
