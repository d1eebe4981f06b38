import { describe, expect, it } from '@jest/globals';
import { findNearNames } from '../../../src/gateway/routing/near-names.ts';

const NAMES = [
  'openai/gpt-4o',
  'openai/gpt-4o-mini',
  'openai/gpt-4.1',
  'anthropic/claude-sonnet-5-5',
  'anthropic/claude-opus-5-5',
  'custom:h.example/Llama-3.3-70B-Instruct',
  'a',
];

describe('similar names', () => {
  it.each([
    ['gpt-4o-mni', 'openai/gpt-4o-mini'],
    ['gpt4o', 'openai/gpt-4o'],
    ['openai/gpt-4o-minni', 'openai/gpt-4o-mini'],
    ['claude-sonet-5.5', 'anthropic/claude-sonnet-5-5'],
    ['CLAUDE-OPUS', 'anthropic/claude-opus-5-5'],
    ['llama-3.3-70b', 'custom:h.example/Llama-3.3-70B-Instruct'],
  ])('of %s begin with %s', (name, nearest) => {
    expect(findNearNames(name, NAMES)[0]).toBe(nearest);
  });

  it.each(['', 'x', 'mistral-large', 'zzzz'])('of %j are none', (name) => {
    expect(findNearNames(name, NAMES)).toEqual([]);
  });

  it('are five at most, the nearest first, then by name', () => {
    const names = Array.from({ length: 20 }, (_, index) => `model-${String(index).padStart(2, '0')}`);
    expect(findNearNames('model-1', names.toReversed())).toEqual([
      ...['model-10', 'model-11', 'model-12', 'model-13', 'model-14'],
    ]);
  });

  it('are searched in a bounded number of names', () => {
    let asked = 0;
    function* endless(): Generator<string> {
      for (; asked < 1_000_000; asked += 1) yield `model-${asked}`;
    }
    expect(findNearNames('model-1', endless())[0]).toBe('model-1');
    expect(asked).toBeLessThan(10_000);
  });
});
