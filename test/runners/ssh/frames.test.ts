import { describe, expect, it } from '@jest/globals';
import { createFrameReader, type Frame } from '../../../src/runners/ssh/frames.ts';

const MARK = '0123456789abcdef';
const frame = (word: string) => `\x1e${MARK}${word}\n`;

/** Reads a stream that arrives in pieces of so many bytes. */
function readAll(stream: string, size: number): { output: string; frames: Frame[] } {
  const reader = createFrameReader(MARK);
  const bytes = Buffer.from(stream, 'latin1');
  const output: Buffer[] = [];
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length; at += size) {
    const read = reader.read(bytes.subarray(at, at + size));
    output.push(read.output);
    frames.push(...read.frames);
  }
  output.push(reader.flush());
  return { output: Buffer.concat(output).toString('latin1'), frames };
}

describe('what the launcher says between a program’s output', () => {
  it.each([1, 2, 3, 7, 18, 19, 20, 1_000])('is told from it in pieces of %d bytes', (size) => {
    const text = `\x1e\x1e${MARK.slice(0, 5)}text\x1e${MARK}\nno frame\x1e${MARK}X\n\xff\0end\x1e`;
    const stream = `welcome${frame('S')}${text}${frame('V')}`;
    expect(readAll(stream, size)).toEqual({
      output: text,
      frames: [{ kind: 'started' }, { kind: 'ended', isClean: true }],
    });
  });

  it('is not taken for output when a program was not started', () => {
    expect(readAll(`welcome${frame('EUfile')}`, 5)).toEqual({
      output: '',
      frames: [{ kind: 'refused', reason: 'file', isClean: false }],
    });
  });

  it('holds output back only while it may be the beginning of a frame', () => {
    const reader = createFrameReader(MARK);
    reader.read(Buffer.from(frame('S')));
    expect(reader.read(Buffer.from('prompt> ')).output.toString()).toBe('prompt> ');
    expect(reader.read(Buffer.from('a\x1e')).output.toString()).toBe('a');
    expect(reader.read(Buffer.from('b')).output.toString()).toBe('\x1eb');
    const long = `\x1e${MARK}${'x'.repeat(100)}`;
    expect(reader.read(Buffer.from(long)).output.toString()).toBe(long);
  });
});
