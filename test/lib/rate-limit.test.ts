import { describe, expect, it } from '@jest/globals';
import { createRateLimit } from '../../src/lib/rate-limit.ts';
import { failing } from '../support/local-upstreams.ts';

describe('a limit per user', () => {
  it('lets each user through as often as it says, and tells what is left', async () => {
    const limit = createRateLimit({ points: 2, refusal: 'Twice a minute.' });
    expect(await limit.take('alice')).toEqual({ left: 1, resetS: 60 });
    expect(await limit.take('alice')).toEqual({ left: 0, resetS: expect.any(Number) });
    expect(await limit.take('bob')).toEqual({ left: 1, resetS: 60 });
  });

  it('refuses the next in its own words, says how long to wait, and lets the caller write that down first', async () => {
    const limit = createRateLimit({ points: 1, windowS: 30, refusal: 'Once in half a minute.' });
    await limit.take('alice');
    const told: unknown[] = [];
    const refused = limit.take('alice', (state) => told.push(state));
    await expect(refused).rejects.toEqual(failing('rate_limited'));
    await expect(refused).rejects.toMatchObject({
      detail: 'Once in half a minute.',
      headers: { 'retry-after': expect.stringMatching(/^(29|30)$/) },
    });
    expect(told).toEqual([{ left: 0, resetS: expect.any(Number) }]);
  });
});
