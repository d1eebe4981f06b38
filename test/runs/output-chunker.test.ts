import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { isUtf8 } from 'node:buffer';
import type { OutputEvent } from '../../src/runs/events.ts';
import { createOutputChunker } from '../../src/runs/output-chunker.ts';
import { until } from '../support/until.ts';

function createTestChunker() {
  const emitted: OutputEvent[] = [];
  const chunker = createOutputChunker((output) => void emitted.push(output));
  return { emitted, chunker };
}

const textOf = (emitted: readonly OutputEvent[], stream: string) =>
  Buffer.concat(emitted.filter((one) => one.stream === stream).map(({ data }) => data));

describe('the output chunker', () => {
  it('emits every byte of each stream in order, and text as whole characters', () => {
    const chunk = fc.record({
      stream: fc.constantFrom('stdout' as const, 'stderr' as const),
      bytes: fc.oneof(
        fc.uint8Array({ maxLength: 40 }),
        fc.string({ unit: 'binary', maxLength: 40 }).map((text) => Buffer.from(text)),
      ),
      flush: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(chunk, { maxLength: 30 }), (chunks) => {
        const { emitted, chunker } = createTestChunker();
        for (const { stream, bytes, flush } of chunks) {
          chunker.write(stream, bytes);
          if (flush) chunker.flush();
        }
        chunker.end();
        for (const name of ['stdout', 'stderr'] as const) {
          const written = chunks.filter(({ stream }) => stream === name).map(({ bytes }) => bytes);
          expect(textOf(emitted, name)).toEqual(Buffer.concat(written));
        }
        for (const { encoding, data } of emitted) {
          expect(data.length).toBeGreaterThan(0);
          expect(encoding).toBe(isUtf8(data) ? 'utf8' : 'base64');
        }
      }),
    );
  });

  it('emits text only, when text of either stream is split at any byte', () => {
    const text = Buffer.from('aé€😀z'.repeat(20));
    const { emitted, chunker } = createTestChunker();
    for (const byte of text) {
      chunker.write('stdout', Buffer.of(byte));
      chunker.write('stderr', Buffer.of(byte));
    }
    chunker.end();
    expect(new Set(emitted.map(({ encoding }) => encoding))).toEqual(new Set(['utf8']));
    expect(textOf(emitted, 'stdout')).toEqual(text);
    expect(textOf(emitted, 'stderr')).toEqual(text);
  });

  it('emits an incomplete character as base64 at the end', () => {
    const { emitted, chunker } = createTestChunker();
    chunker.write('stdout', Buffer.from([0x61, 0xf0, 0x9f]));
    expect(emitted.map(({ data }) => data.toString())).toEqual(['a']);
    chunker.end();
    expect(emitted[1]).toMatchObject({ encoding: 'base64', data: Buffer.from([0xf0, 0x9f]) });
  });

  it('does not retain the large buffer of a few bytes', () => {
    const { emitted, chunker } = createTestChunker();
    for (const stream of ['stdout', 'stderr', 'stdout', 'stderr'] as const) {
      const received = Buffer.alloc(16 * 1024, 'x');
      chunker.write(stream, received.subarray(100, 101));
      chunker.write(stream, Buffer.from('y'));
      chunker.flush();
    }
    chunker.end();
    expect(textOf(emitted, 'stdout').toString()).toBe('xyxy');
    for (const { data } of emitted) expect(data.buffer.byteLength).toBeLessThanOrEqual(2);
  });

  it('keeps the order of the two streams', () => {
    const { emitted, chunker } = createTestChunker();
    for (const [stream, text] of [
      ['stdout', '1'],
      ['stdout', '2'],
      ['stderr', '3'],
      ['stdout', '4'],
    ] as const)
      chunker.write(stream, Buffer.from(text));
    chunker.end();
    expect(emitted.map(({ data }) => data.toString()).join('')).toBe('1234');
  });

  it('emits the first bytes at once, and collects the following ones for a short time', async () => {
    const { emitted, chunker } = createTestChunker();
    chunker.write('stdout', Buffer.from('first'));
    expect(emitted).toHaveLength(1);
    for (let at = 0; at < 100; at += 1) chunker.write('stdout', Buffer.from('x'));
    expect(emitted.length).toBeLessThan(50);
    await until(() => textOf(emitted, 'stdout').length === 105);
  });

  it('limits the size of an event', () => {
    const { emitted, chunker } = createTestChunker();
    chunker.write('stdout', Buffer.alloc(1024 * 1024, 'é'));
    chunker.end();
    expect(Math.max(...emitted.map(({ data }) => data.length))).toBeLessThanOrEqual(64 * 1024);
    expect(textOf(emitted, 'stdout')).toHaveLength(1024 * 1024);
  });
});
