import { describe, expect, it } from '@jest/globals';
import { createFrameReader, type Frame } from '../../../src/runners/ssh/session.ts';

const MARKER = '0123456789abcdef';
const PROOF = 'fedcba9876543210';
const SECRETS = { marker: MARKER, supervisorProof: PROOF, watcherProof: '00112233445566' };
const frame = (word: string) => `\x1e${MARKER}${word}\n`;

/** Reads a stream that arrives in chunks of `size` bytes. */
function readAll(stream: string, size: number): { output: string; frames: Frame[] } {
  const reader = createFrameReader(SECRETS);
  const bytes = Buffer.from(stream, 'latin1');
  const output: Buffer[] = [];
  const frames: Frame[] = [];
  for (let offset = 0; offset < bytes.length; offset += size) {
    for (const item of reader.read(bytes.subarray(offset, offset + size))) {
      if (Buffer.isBuffer(item)) output.push(item);
      else frames.push(item);
    }
  }
  output.push(reader.flush());
  return { output: Buffer.concat(output).toString('latin1'), frames };
}

describe('frames within the output of a program', () => {
  it.each([1, 2, 3, 7, 18, 19, 20, 1_000])('are separated from it in chunks of %d bytes', (size) => {
    const text = `\x1e\x1e${MARKER.slice(0, 5)}text\x1e${MARKER}\nno frame\x1e${MARKER}X\n\xff\0${frame('V')}${frame(`${MARKER}V`)}end\x1e`;
    const stream = `welcome${frame('N')}${text}${frame(`${PROOF}V`)}`;
    expect(readAll(stream, size)).toEqual({
      output: text,
      frames: [
        { kind: 'started', supervision: 'search' },
        { kind: 'ended', by: 'supervisor', isClean: true, isSilent: false },
      ],
    });
  });

  it('are not output when the program was not started', () => {
    expect(readAll(`welcome${frame('R')}${frame('EUtools,awk,/proc')}`, 5)).toEqual({
      output: '',
      frames: [
        { kind: 'ready' },
        { kind: 'refused', reason: 'tools', missing: ['awk', '/proc'], isClean: false },
      ],
    });
  });

  it('hold output back only while it may begin a frame', () => {
    const reader = createFrameReader(SECRETS);
    const read = (text: string) =>
      Buffer.concat(reader.read(Buffer.from(text)).filter((item) => Buffer.isBuffer(item))).toString();
    read(frame('S'));
    expect(read('prompt> ')).toBe('prompt> ');
    expect(read('a\x1e')).toBe('a');
    expect(read('b')).toBe('\x1eb');
    const long = `\x1e${MARKER}${'x'.repeat(100)}`;
    expect(read(long)).toBe(long);
  });
});
