import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { isUtf8 } from 'node:buffer';
import type { OutputEvent } from '../../src/runs/events.ts';
import { createOutputChunker } from '../../src/runs/output-chunker.ts';
import { until } from '../support/until.ts';

function gather() {
  const told: OutputEvent[] = [];
  const pieces = createOutputChunker((output) => void told.push(output));
  return { told, pieces };
}

const textOf = (told: readonly OutputEvent[], stream: string) =>
  Buffer.concat(told.filter((one) => one.stream === stream).map(({ data }) => data));

describe('pieces of output', () => {
  it('hold every byte of each stream, in order, however the bytes come, and are whole characters where text', () => {
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
        const { told, pieces } = gather();
        for (const { stream, bytes, flush } of chunks) {
          pieces.write(stream, bytes);
          if (flush) pieces.flush();
        }
        pieces.end();
        for (const name of ['stdout', 'stderr'] as const) {
          const written = chunks.filter(({ stream }) => stream === name).map(({ bytes }) => bytes);
          expect(textOf(told, name)).toEqual(Buffer.concat(written));
        }
        for (const { encoding, data } of told) {
          expect(data.length).toBeGreaterThan(0);
          expect(encoding).toBe(isUtf8(data) ? 'utf8' : 'base64');
        }
      }),
    );
  });

  it('are text throughout when text is cut anywhere, each stream for itself', () => {
    const text = Buffer.from('aé€😀z'.repeat(20));
    const { told, pieces } = gather();
    for (const byte of text) {
      pieces.write('stdout', Buffer.of(byte));
      pieces.write('stderr', Buffer.of(byte));
    }
    pieces.end();
    expect(new Set(told.map(({ encoding }) => encoding))).toEqual(new Set(['utf8']));
    expect(textOf(told, 'stdout')).toEqual(text);
    expect(textOf(told, 'stderr')).toEqual(text);
  });

  it('tell the beginning of a character that never ends as base64, at the end', () => {
    const { told, pieces } = gather();
    pieces.write('stdout', Buffer.from([0x61, 0xf0, 0x9f]));
    expect(told.map(({ data }) => data.toString())).toEqual(['a']);
    pieces.end();
    expect(told[1]).toMatchObject({ encoding: 'base64', data: Buffer.from([0xf0, 0x9f]) });
  });

  it('keep nothing of the memory that a few bytes came in', () => {
    const { told, pieces } = gather();
    for (const stream of ['stdout', 'stderr', 'stdout', 'stderr'] as const) {
      const received = Buffer.alloc(16 * 1024, 'x');
      pieces.write(stream, received.subarray(100, 101));
      pieces.write(stream, Buffer.from('y'));
      pieces.flush();
    }
    pieces.end();
    expect(textOf(told, 'stdout').toString()).toBe('xyxy');
    for (const { data } of told) expect(data.buffer.byteLength).toBeLessThanOrEqual(2);
  });

  it('keep the order of the two streams', () => {
    const { told, pieces } = gather();
    for (const [stream, text] of [
      ['stdout', '1'],
      ['stdout', '2'],
      ['stderr', '3'],
      ['stdout', '4'],
    ] as const)
      pieces.write(stream, Buffer.from(text));
    pieces.end();
    expect(told.map(({ data }) => data.toString()).join('')).toBe('1234');
  });

  it('tell the first bytes at once, gather those that follow closely, and tell them without being asked', async () => {
    const { told, pieces } = gather();
    pieces.write('stdout', Buffer.from('first'));
    expect(told).toHaveLength(1);
    for (let at = 0; at < 100; at += 1) pieces.write('stdout', Buffer.from('x'));
    expect(told.length).toBeLessThan(50);
    await until(() => textOf(told, 'stdout').length === 105);
  });

  it('have a bounded size', () => {
    const { told, pieces } = gather();
    pieces.write('stdout', Buffer.alloc(1024 * 1024, 'é'));
    pieces.end();
    expect(Math.max(...told.map(({ data }) => data.length))).toBeLessThanOrEqual(64 * 1024);
    expect(textOf(told, 'stdout')).toHaveLength(1024 * 1024);
  });
});
