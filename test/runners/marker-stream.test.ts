import { describe, expect, it } from '@jest/globals';
import { createMarkerReader } from '../../src/runners/marker-stream.ts';

const PREFIX = Buffer.from('\0abcd:');

/** The program's output and the markers of a text that arrives in chunks. */
function parse(...texts: string[]) {
  const markers: string[] = [];
  const reader = createMarkerReader(PREFIX, (text) => (text === 'unknown' ? undefined : text));
  const output = texts.map((text) => {
    const items = reader.read(Buffer.from(text, 'latin1'));
    markers.push(...items.filter((item) => typeof item === 'string'));
    return Buffer.concat(items.filter((item) => typeof item !== 'string')).toString('latin1');
  });
  return { output: output.join('') + reader.flush().toString('latin1'), markers, chunks: output };
}

describe('createMarkerReader', () => {
  it('removes markers from the stream at any chunk boundary', () => {
    const text = 'before\0abcd:start\nbetween\0abcd:exited\nafter';
    for (let cut = 0; cut <= text.length; cut += 1) {
      const { output, markers } = parse(text.slice(0, cut), text.slice(cut));
      expect(output).toBe('beforebetweenafter');
      expect(markers).toEqual(['start', 'exited']);
    }
    expect(parse(...Array.from(text))).toMatchObject({
      output: 'beforebetweenafter',
      markers: ['start', 'exited'],
    });
  });

  it('delays nothing that cannot be a marker', () => {
    expect(parse('live output').chunks).toEqual(['live output']);
    expect(parse('x\0ab').chunks).toEqual(['x']);
    expect(parse('x\0ab', 'y').chunks).toEqual(['x', '\0aby']);
  });

  it('leaves text unchanged that only resembles a marker', () => {
    for (const text of ['\0abce:start\n', 'abcd:start\n', '\0abcd', '\0\0\0abc', '\0abcd:start']) {
      expect(parse(text)).toMatchObject({ output: text, markers: [] });
    }
  });

  it('returns output and markers in their order', () => {
    const reader = createMarkerReader(PREFIX, (text) => text);
    const items = reader.read(Buffer.from('a\0abcd:start\n\0abcd:exited\nb'));
    expect(items).toEqual([Buffer.from('a'), 'start', 'exited', Buffer.from('b')]);
  });

  it('treats an unknown marker as program output, and finds a marker after it', () => {
    const text = '\0abcd:unknown\n\0abcd:start\n';
    for (let cut = 0; cut <= text.length; cut += 1)
      expect(parse(text.slice(0, cut), text.slice(cut))).toMatchObject({
        output: '\0abcd:unknown\n',
        markers: ['start'],
      });
  });

  it('finds a marker after a prefix whose line is too long', () => {
    const long = `\0abcd:${'x'.repeat(100)}`;
    expect(parse(`${long}\0abcd:sta`, 'rt\n')).toMatchObject({ output: long, markers: ['start'] });
  });

  it('treats a long line after a prefix as program output', () => {
    const text = `\0abcd:${'x'.repeat(5000)}`;
    const { output, markers, chunks } = parse(text.slice(0, 40), text.slice(40));
    expect(output).toBe(text);
    expect(markers).toEqual([]);
    expect(chunks.join('')).toBe(text);
  });
});
