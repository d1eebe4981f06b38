import { describe, expect, it } from '@jest/globals';
import { responsesUsage } from '../../../../src/gateway/surfaces/openai-responses/usage.ts';
import { NO_USAGE } from '../../../../src/gateway/token-usage.ts';

const read = (...values: unknown[]) => {
  const reader = responsesUsage.createReader();
  for (const value of values) reader.add(value);
  return reader.read();
};
const USAGE = {
  input_tokens: 36,
  input_tokens_details: { cached_tokens: 30 },
  output_tokens: 87,
  output_tokens_details: { reasoning_tokens: 64 },
};
const CREATED = { type: 'response.created', response: { object: 'response', model: 'gpt-5.1', usage: null } };

describe('usage of Responses', () => {
  it.each(['response.completed', 'response.incomplete', 'response.failed'])('is read from %s', (type) => {
    expect(read(CREATED, { type, response: { model: 'gpt-5.1', usage: USAGE } })).toEqual({
      ...NO_USAGE,
      ...{ inputTokens: 36, cachedTokens: 30, outputTokens: 87, reasoningTokens: 64, servedModel: 'gpt-5.1' },
    });
  });

  it('is read from a whole response, with the cost that xAI states', () => {
    const usage = { ...USAGE, cost_in_usd_ticks: 1e9 };
    expect(read({ object: 'response', model: 'grok-4', usage })).toMatchObject({
      ...{ inputTokens: 36, servedModel: 'grok-4', costUsd: '0.100000000000' },
    });
  });

  it('is unknown in a stream that was cut, but for the model', () => {
    expect(read(CREATED)).toEqual({ ...NO_USAGE, servedModel: 'gpt-5.1' });
  });

  it.each([
    ['response.created', false],
    ['response.output_item.added', false],
    ['response.output_text.delta', true],
    ['response.reasoning_summary_text.delta', true],
    ['response.function_call_arguments.delta', true],
  ])('the event %s is output: %p', (type, expected) => {
    expect(responsesUsage.hasOutput({ type })).toBe(expected);
  });
});
