import { describe, expect, it } from '@jest/globals';
import { embeddingsUsage } from '../../../../src/gateway/surfaces/embeddings/usage.ts';
import { NO_USAGE } from '../../../../src/gateway/token-usage.ts';

const read = (value: unknown) => {
  const reader = embeddingsUsage.createReader();
  reader.add(value);
  return reader.read();
};

describe('usage of embeddings', () => {
  it.each([{ prompt_tokens: 8, total_tokens: 8 }, { total_tokens: 8 }])('%j is input alone', (usage) => {
    expect(read({ object: 'list', model: 'text-embedding-3-small', usage })).toEqual({
      ...NO_USAGE,
      ...{ inputTokens: 8, outputTokens: 0, servedModel: 'text-embedding-3-small' },
    });
  });

  it('is unknown where the server reports none', () => {
    expect(read({ object: 'list', data: [] })).toEqual(NO_USAGE);
  });
});
