import { describe, expect, it } from '@jest/globals';
import { chatUsage } from '../../../../src/gateway/surfaces/openai-chat/usage.ts';
import { NO_USAGE } from '../../../../src/gateway/token-usage.ts';

const read = (...values: unknown[]) => {
  const reader = chatUsage.createReader();
  for (const value of values) reader.add(value);
  return reader.read();
};
const chunk = (more: object = {}) => ({ model: 'gpt-4o-2024-08-06', choices: [{ delta: {} }], ...more });

describe('usage of chat completions', () => {
  it('has the details that the provider reports', () => {
    const usage = {
      prompt_tokens: 100,
      completion_tokens: 20,
      prompt_tokens_details: { cached_tokens: 60, cache_write_tokens: 10 },
      completion_tokens_details: { reasoning_tokens: 5 },
    };
    expect(read({ model: 'm', choices: [{}], usage })).toEqual({
      ...{ inputTokens: 100, cachedTokens: 60, cacheWriteTokens: 10, outputTokens: 20, reasoningTokens: 5 },
      ...{ servedModel: 'm', costUsd: null },
    });
  });

  it('is the last report of a stream, and unknown before the first one', () => {
    expect(read(chunk(), chunk({ usage: null }))).toEqual({ ...NO_USAGE, servedModel: 'gpt-4o-2024-08-06' });
    const stream = [
      chunk({ usage: { prompt_tokens: 3, completion_tokens: 1 } }),
      chunk({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 9 } }),
    ];
    expect(read(...stream)).toMatchObject({ inputTokens: 3, outputTokens: 9 });
  });

  it.each([
    ['Groq', { x_groq: { usage: { prompt_tokens: 4, completion_tokens: 2 } } }, { inputTokens: 4 }],
    ['DeepSeek', { usage: { prompt_tokens: 4, prompt_cache_hit_tokens: 3 } }, { cachedTokens: 3 }],
    ['OpenRouter’s cost', { usage: { cost: 0.00014 } }, { costUsd: '0.000140000000' }],
    [
      'OpenRouter’s fee and the bill of the own key there',
      { usage: { cost: 0.01, is_byok: true, cost_details: { upstream_inference_cost: 0.2 } } },
      { costUsd: '0.210000000000' },
    ],
    ['xAI’s cost', { usage: { cost_in_usd_ticks: 37_756_000 } }, { costUsd: '0.003775600000' }],
  ])('reads %s', (_what, value, expected) => {
    expect(read(value)).toMatchObject(expected);
  });

  it.each([-1, 1.5, 2 ** 53, '7', null, {}, Infinity])('does not count %p', (value) => {
    const usage = { prompt_tokens: value, completion_tokens: value };
    expect(read({ usage })).toMatchObject({ inputTokens: null, outputTokens: null });
  });

  it.each([-1, '0.5', null, 1e9, NaN])('does not take %p for a cost', (cost) => {
    expect(read({ usage: { cost } }).costUsd).toBeNull();
  });

  it.each(['', 'a\u0000b', 'a\u202eb', 'x'.repeat(257), '\ud800', 7])(
    'does not take %j for a model',
    (model) => {
      expect(read({ model }).servedModel).toBeNull();
    },
  );

  it.each([
    [{ role: 'assistant', content: '' }, false],
    [{}, false],
    [{ tool_calls: [] }, false],
    [{ content: 'a' }, true],
    [{ reasoning_content: 'a' }, true],
    [{ reasoning: 'a' }, true],
    [{ tool_calls: [{ index: 0 }] }, true],
    [{ refusal: 'a' }, true],
  ])('the delta %j is output: %p', (delta, expected) => {
    expect(chatUsage.hasOutput({ choices: [{ index: 0, delta }] })).toBe(expected);
  });
});

describe('asking for the usage of a stream', () => {
  const ask = (body: string) => chatUsage.streamRequest?.addTo(Buffer.from(body)).toString();

  it.each([
    ['{"stream":true}', '{"stream_options":{"include_usage":true},"stream":true}'],
    [
      ' { "a" : "ü\\"" , "stream":true}',
      ' {"stream_options":{"include_usage":true}, "a" : "ü\\"" , "stream":true}',
    ],
    ['{"a":1,"stream_options": null ,"b":2}', '{"a":1,"stream_options": {"include_usage":true} ,"b":2}'],
    [
      '{"stream_options":{"x":[1],"include_usage":false},"b":2}',
      '{"stream_options":{"x":[1],"include_usage":true},"b":2}',
    ],
  ])('changes %s to %s', (body, expected) => {
    expect(ask(body)).toBe(expected);
  });

  it.each(['{"stream_options":{"include_usage":true}}', '{"stream_options":7}', '{"stream_options":[]}'])(
    'leaves %s',
    (body) => {
      expect(ask(body)).toBe(body);
    },
  );

  it.each([
    [{ choices: [], usage: { prompt_tokens: 1 } }, true],
    [{ choices: [], prompt_filter_results: [] }, false],
    [{ choices: [], usage: null }, false],
    [{ choices: [{}], usage: { prompt_tokens: 1 } }, false],
  ])('%j is there for the usage alone: %p', (event, expected) => {
    expect(chatUsage.streamRequest?.isUsageOnly(event)).toBe(expected);
  });
});
