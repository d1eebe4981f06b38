import { describe, expect, it } from '@jest/globals';
import { calcPrice, findProvider, type ModelInfo } from '@pydantic/genai-prices';
import { NO_USAGE } from '../../src/gateway/token-usage.ts';
import { createPrices } from '../../src/usage/prices.ts';
import type { TokenUsage } from '../../src/usage/record.ts';

const usage = (more: Partial<TokenUsage> = {}): TokenUsage => ({
  ...NO_USAGE,
  ...{ inputTokens: 1_000, outputTokens: 100 },
  ...more,
});

describe('the cost of an answer', () => {
  const prices = createPrices(calcPrice);

  it('is that of the package for every model that it knows, with cached and written tokens', () => {
    const models = ['openai', 'anthropic', 'groq', 'together', 'openrouter', 'cohere', 'perplexity'].flatMap(
      (provider) =>
        (findProvider({ providerId: provider })?.models ?? []).map((model) => ({ provider, model })),
    );
    expect(models.length).toBeGreaterThan(400);
    const counts = {
      input_tokens: 1_000,
      output_tokens: 100,
      cache_read_tokens: 300,
      cache_write_tokens: 50,
    };
    const read = usage({ cachedTokens: 300, cacheWriteTokens: 50 });
    const differing = models.filter(({ provider, model }) => {
      const name = nameOf(model);
      const expected = calcPrice(counts, name, { providerId: provider })?.total_price;
      const found = prices.findCost(provider, name, read);
      if (expected === undefined || found === null) return expected !== undefined || found !== null;
      return Math.abs(expected - Number(found)) > 1e-11;
    });
    expect(differing.map(({ provider, model }) => `${provider}/${model.id}`)).toEqual([]);
  });

  it('is a decimal number', () => {
    expect(prices.findCost('openai', 'gpt-4o', usage())).toBe('0.003500000000');
    expect(prices.findCost('openai', 'text-embedding-3-small', usage({ outputTokens: 0 }))).toBe(
      '0.000020000000',
    );
  });

  it.each([
    ['a model that is not known', 'openai', 'no-such-model', usage()],
    ['a server of a user', 'custom', 'gpt-4o', usage()],
    ['unknown input', 'openai', 'gpt-4o', usage({ inputTokens: null })],
    ['unknown output', 'openai', 'gpt-4o', usage({ outputTokens: null })],
    ['more cached tokens than input', 'openai', 'gpt-4o', usage({ cachedTokens: 1_001 })],
  ])('is unknown, not zero, for %s', (_what, provider, model, read) => {
    expect(prices.findCost(provider, model, read)).toBeNull();
  });

  it('asks the package once a minute for a model, known or not', () => {
    const asked: string[] = [];
    let now = 0;
    const counted = createPrices(
      (counts, model, options) => {
        asked.push(model);
        return calcPrice(counts, model, options);
      },
      () => now,
    );
    for (const model of ['gpt-4o', 'none', 'gpt-4o', 'none']) counted.findCost('openai', model, usage());
    expect(asked).toEqual(['gpt-4o', 'none']);
    now = 60_000;
    counted.findCost('openai', 'gpt-4o', usage());
    expect(asked).toHaveLength(3);
  });
});

/** A name that the model is found by. */
function nameOf({ id, match }: ModelInfo): string {
  return 'equals' in match ? match.equals : id;
}
