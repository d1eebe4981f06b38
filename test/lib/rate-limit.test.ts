import { describe, expect, it } from '@jest/globals';
import { createRateLimit } from '../../src/lib/rate-limit.ts';
import { errorWithCode } from '../support/local-upstreams.ts';

describe('a rate limit per user', () => {
  it('accepts the given number of uses per user and returns the remaining number', async () => {
    const limit = createRateLimit({ maxUses: 2, rejectionDetail: 'Twice a minute.' });
    expect(await limit.consume('alice')).toEqual({ remaining: 1, resetS: 60 });
    expect(await limit.consume('alice')).toEqual({ remaining: 0, resetS: expect.any(Number) });
    expect(await limit.consume('bob')).toEqual({ remaining: 1, resetS: 60 });
  });

  it('rejects the next use with its detail and Retry-After, after calling onRejected', async () => {
    const limit = createRateLimit({ maxUses: 1, windowS: 30, rejectionDetail: 'Once in half a minute.' });
    await limit.consume('alice');
    const states: unknown[] = [];
    const refused = limit.consume('alice', (state) => states.push(state));
    await expect(refused).rejects.toEqual(errorWithCode('rate_limited'));
    await expect(refused).rejects.toMatchObject({
      detail: 'Once in half a minute.',
      headers: { 'retry-after': expect.stringMatching(/^(29|30)$/) },
    });
    expect(states).toEqual([{ remaining: 0, resetS: expect.any(Number) }]);
  });
});
