import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  createJsonMeter,
  findTopLevelMembers,
  removeTopLevelMembers,
  MAX_JSON_SIZE,
  measureJson,
  parseJson,
} from '../../src/lib/json.ts';

/** The members of a parsed value and of all values in it. */
function countMembers(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  const own = Array.isArray(value) ? 0 : Object.keys(value).length;
  return Object.values(value).reduce<number>((count, item) => count + countMembers(item), own);
}

describe('findTopLevelMembers', () => {
  it('finds the members that JSON.parse finds, with the exact offsets of their values', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(0, 1, 2), (object, indent) => {
        const text = Buffer.from(JSON.stringify(object, null, indent));
        const { members } = findTopLevelMembers(text);
        const rebuilt = members.map(({ name, valueStart, valueEnd }) => [
          name,
          JSON.parse(text.toString('utf8', valueStart, valueEnd)) as unknown,
        ]);
        expect(rebuilt).toEqual(Object.entries(JSON.parse(text.toString()) as object));
      }),
    );
  });

  it('finds both members of the same name, of which JSON.parse hides one', () => {
    const names = findTopLevelMembers(
      Buffer.from('{ "a" : 1 , "\\u0061":{"x":[",}",{}]}, "b":"\\\\\\"" }'),
    ).members.map((m) => m.name);
    expect(names).toEqual(['a', 'a', 'b']);
  });
});

describe('removeTopLevelMembers', () => {
  it('removes the members of these names, for any object', () => {
    const object = fc.dictionary(fc.constantFrom('a', 'b', 'c', '__proto__', 'ä"\\'), fc.jsonValue());
    fc.assert(
      fc.property(
        object,
        fc.constantFrom(0, 2),
        fc.subarray(['a', 'c', '__proto__']),
        (value, indent, names) => {
          const rest = removeTopLevelMembers(
            Buffer.from(JSON.stringify(value, null, indent)),
            names,
          ).toString();
          const kept = Object.entries(value).filter(([name]) => !names.includes(name));
          expect(JSON.parse(rest)).toEqual(JSON.parse(JSON.stringify(Object.fromEntries(kept))));
        },
      ),
    );
  });

  it('keeps the bytes of the others: numbers beyond the precision of JavaScript, escapes and blanks', () => {
    const text =
      '{ "seed": 12345678901234567890, "metadata":{"a":[1,"}"]} ,"m\\u006fdel" : "a\\/b","x":1.0 }';
    const rest = removeTopLevelMembers(Buffer.from(text), ['metadata', 'x']).toString();
    expect(rest).toBe('{"seed": 12345678901234567890,"m\\u006fdel" : "a\\/b"}');
  });
});

const LIMITS = { objectMembers: 3, members: 5, elements: 4 };
const measure = (text: string) => measureJson(Buffer.from(text), LIMITS);
/** Longer than the part of a string that is read byte by byte. */
const LONG = 'x'.repeat(200);

describe('measureJson', () => {
  it('counts the members that a parser finds, in any text', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(0, 1), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        expect(measureJson(Buffer.from(text))).toBe(countMembers(value));
      }),
    );
  });

  it.each([
    ['members of one object', '{"a":1,"b":2,"c":3}', '{"a":1,"b":2,"c":3,"d":4}'],
    ['duplicate members', '{"a":1,"a":2,"a":3}', '{"a":1,"a":2,"a":3,"a":4}'],
    [
      'members of all objects',
      '{"a":{"b":1,"c":{}},"d":[{"e":1}]}',
      '{"a":{"b":1,"c":{}},"d":[{"e":1,"f":2}]}',
    ],
    ['members after an inner object', '{"a":{"x":1},"b":2,"c":3}', '{"a":{},"b":2,"c":3,"d":4}'],
    ['elements', '[1,2,3,4]', '[1,2,3,4,5]'],
    ['elements of all arrays', '[[],[1],[ ]]', '[[],[1],[2]]'],
    ['an element alone in its array', '[[[[1]]]]', '[[[[[1]]]]]'],
    [
      'structure after long strings',
      `["${LONG}\\"",["${LONG}\\\\"],{}]`,
      `["${LONG}\\"",["${LONG}\\\\"],{},1]`,
    ],
    ['structure after escapes', `["${'\\"'.repeat(99)}",1,2,3]`, `["${'\\"'.repeat(99)}",1,2,3,4]`],
    ['nesting', '{"a":'.repeat(2) + '1' + '}'.repeat(2), '['.repeat(101) + ']'.repeat(101)],
  ])('limits %s', (_kind, allowed, refused) => {
    expect(measure(allowed)).toBeDefined();
    expect(measure(refused)).toBeUndefined();
    if (!refused.startsWith('[[[[[[')) expect(parseJson(refused)).toBeDefined();
  });

  it('counts the same in pieces, wherever the text is cut', () => {
    const parts = fc.constantFrom('{', '}', '[', ']', ' ', ',', ':', '"', '\\', 'x', LONG);
    fc.assert(
      fc.property(fc.array(parts), fc.array(fc.nat({ max: 300 })), (texts, sizes) => {
        const text = Buffer.from(texts.join(''));
        const meter = createJsonMeter();
        let start = 0;
        for (const size of [...sizes, text.length]) {
          expect(meter.add(text.subarray(start, start + size))).toBe(true);
          start += size;
        }
        expect(meter.members()).toBe(measureJson(text));
      }),
      { numRuns: 1_000 },
    );
  });

  it.each([
    ['members', ['{"a":1,"b":2,"c":3,', '"d":'], [true, false]],
    [
      'an element after an opening bracket',
      ['[1,2,3,[', ' ', ']', ',[', '[', ']'],
      [true, true, true, false],
    ],
    ['members after a cut escape', ['{"a\\', '"', '":1,"b":2,"c":3,"d":', '1'], [true, true, false]],
  ])('refuses %s at the first piece beyond a limit', (_kind, pieces, accepted) => {
    const meter = createJsonMeter(LIMITS);
    const seen: boolean[] = [];
    for (const piece of pieces) {
      seen.push(meter.add(Buffer.from(piece)));
      if (seen.at(-1) === false) break;
    }
    expect(seen).toEqual(accepted);
  });

  it('does not count what stands in strings', () => {
    expect(measure(JSON.stringify([`${LONG}{}[],:"\\`, '{":,[', LONG]))).toBe(0);
  });

  it.each(['{"a', '"\\', `"${LONG}\\`, `"${LONG}\\"`, '[ ', '}]', ''])(
    'ends for the incomplete text %j',
    (text) => {
      expect(measureJson(Buffer.from(text))).toBeDefined();
      expect(parseJson(text)).toBeUndefined();
    },
  );

  it('has limits that no request to a model reaches, and that a parser reads quickly', () => {
    expect(MAX_JSON_SIZE).toEqual({ objectMembers: 10_000, members: 100_000, elements: 1_000_000 });
  });
});
