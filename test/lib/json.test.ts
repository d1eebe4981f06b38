import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { findTopLevelMembers } from '../../src/lib/json.ts';

describe('findTopLevelMembers', () => {
  it('finds the members that JSON.parse finds, with the exact offsets of their values', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(0, 1, 2), (object, indent) => {
        const text = JSON.stringify(object, null, indent);
        const { members } = findTopLevelMembers(text);
        const rebuilt = members.map(({ name, valueStart, valueEnd }) => [
          name,
          JSON.parse(text.slice(valueStart, valueEnd)) as unknown,
        ]);
        expect(rebuilt).toEqual(Object.entries(JSON.parse(text) as object));
      }),
    );
  });

  it('finds both members of the same name, of which JSON.parse hides one', () => {
    const names = findTopLevelMembers('{ "a" : 1 , "\\u0061":{"x":[",}",{}]}, "b":"\\\\\\"" }').members.map(
      (m) => m.name,
    );
    expect(names).toEqual(['a', 'a', 'b']);
  });
});
