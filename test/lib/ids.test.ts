import { describe, expect, it } from '@jest/globals';
import { randomId } from '../../src/lib/ids.ts';

describe('random ids', () => {
  it('are base62 of the given length, 12 by default, and do not repeat', () => {
    const ids = Array.from({ length: 2000 }, () => randomId());
    expect(new Set(ids).size).toBe(ids.length);
    for (const id of ids) expect(id).toMatch(/^[0-9A-Za-z]{12}$/);
    expect(randomId(32)).toMatch(/^[0-9A-Za-z]{32}$/);
  });

  it('use all characters about equally often', () => {
    const counts = new Map<string, number>();
    for (const character of randomId(62_000)) counts.set(character, (counts.get(character) ?? 0) + 1);
    // 1,000 expected each; eight standard deviations, so that the test does not fail by chance.
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(255);
    expect(counts.size).toBe(62);
  });
});
