import { describe, expect, it } from '@jest/globals';
import { createMarkerParser } from '../../../src/runners/docker/marker-stream.ts';

const MARK = Buffer.from('\0abcd:');

/** What is the program's, and the records, for a text that comes in pieces. */
function parse(...pieces: string[]) {
  const records: string[] = [];
  const notes = createMarkerParser(MARK, (text) => records.push(text));
  const own = pieces.map((piece) => notes.push(Buffer.from(piece, 'latin1')).toString('latin1'));
  return { own: own.join('') + notes.flush().toString('latin1'), records, passed: own };
}

describe('the records of a script', () => {
  it('are taken out of the error stream wherever it was cut', () => {
    const text = 'before\0abcd:start\nbetween\0abcd:exited\nafter';
    for (let cut = 0; cut <= text.length; cut += 1) {
      const { own, records } = parse(text.slice(0, cut), text.slice(cut));
      expect(own).toBe('beforebetweenafter');
      expect(records).toEqual(['start', 'exited']);
    }
    expect(parse(...Array.from(text))).toMatchObject({
      own: 'beforebetweenafter',
      records: ['start', 'exited'],
    });
  });

  it('hold nothing back that cannot be one', () => {
    expect(parse('live output').passed).toEqual(['live output']);
    expect(parse('x\0ab').passed).toEqual(['x']);
    expect(parse('x\0ab', 'y').passed).toEqual(['x', '\0aby']);
  });

  it('leave alone what only looks like one', () => {
    for (const text of ['\0abce:start\n', 'abcd:start\n', '\0abcd', '\0\0\0abc', '\0abcd:start']) {
      expect(parse(text)).toMatchObject({ own: text, records: [] });
    }
  });

  it('are short: a longer line behind a mark is the program’s', () => {
    const text = `\0abcd:${'x'.repeat(5000)}`;
    const { own, records, passed } = parse(text.slice(0, 40), text.slice(40));
    expect(own).toBe(text);
    expect(records).toEqual([]);
    expect(passed.join('')).toBe(text);
  });
});
