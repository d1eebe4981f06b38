import { describe, expect, it } from '@jest/globals';
import { createRateLimit } from '../../src/lib/rate-limit.ts';
import { errorWithCode } from '../support/local-upstreams.ts';

describe('a limit per user', () => {
  it('lets each user through as often as it says, and tells what is left', async () => {
    const limit = createRateLimit({ points: 2, rejectionDetail: 'Twice a minute.' });
    expect(await limit.consume('alice')).toEqual({ remaining: 1, resetS: 60 });
    expect(await limit.consume('alice')).toEqual({ remaining: 0, resetS: expect.any(Number) });
    expect(await limit.consume('bob')).toEqual({ remaining: 1, resetS: 60 });
  });

  it('refuses the next in its own words, says how long to wait, and lets the caller write that down first', async () => {
    const limit = createRateLimit({ points: 1, windowS: 30, rejectionDetail: 'Once in half a minute.' });
    await limit.consume('alice');
    const told: unknown[] = [];
    const refused = limit.consume('alice', (state) => told.push(state));
    await expect(refused).rejects.toEqual(errorWithCode('rate_limited'));
    await expect(refused).rejects.toMatchObject({
      detail: 'Once in half a minute.',
      headers: { 'retry-after': expect.stringMatching(/^(29|30)$/) },
    });
    expect(told).toEqual([{ remaining: 0, resetS: expect.any(Number) }]);
  });
});
