import { describe, expect, it } from '@jest/globals';
import { messagesUsage } from '../../../../src/gateway/surfaces/anthropic-messages/usage.ts';
import { NO_USAGE } from '../../../../src/gateway/token-usage.ts';

const read = (...values: unknown[]) => {
  const reader = messagesUsage.createReader();
  for (const value of values) reader.add(value);
  return reader.read();
};
const START = {
  type: 'message_start',
  message: {
    type: 'message',
    model: 'claude-sonnet-4-6',
    usage: {
      input_tokens: 25,
      cache_creation_input_tokens: 8,
      cache_read_input_tokens: 100,
      output_tokens: 1,
    },
  },
};
const DELTA = { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'a' } };

describe('usage of messages', () => {
  it('counts cached and written tokens as input', () => {
    expect(read(START.message)).toEqual({
      ...NO_USAGE,
      ...{ inputTokens: 133, cachedTokens: 100, cacheWriteTokens: 8, outputTokens: 1 },
      servedModel: 'claude-sonnet-4-6',
    });
  });

  it('merges the report at the end of a stream with that at its start', () => {
    const end = { type: 'message_delta', delta: {}, usage: { output_tokens: 15 } };
    const merged = { inputTokens: 133, cachedTokens: 100, outputTokens: 15 };
    expect(read(START, { type: 'ping' }, DELTA, end, { type: 'message_stop' })).toMatchObject(merged);
  });

  it('takes the later one of two reports of the input, but no null', () => {
    const usage = { input_tokens: 30, cache_read_input_tokens: null, output_tokens: 2 };
    const end = { type: 'message_delta', usage };
    expect(read(START, end)).toMatchObject({ inputTokens: 138, cachedTokens: 100, outputTokens: 2 });
  });

  it('has what a stream that was cut has reported', () => {
    expect(read(START, DELTA)).toMatchObject({ inputTokens: 133, outputTokens: 1 });
    expect(read({ type: 'ping' })).toEqual(NO_USAGE);
  });

  it('output begins with the first delta of a block', () => {
    expect([START, { type: 'ping' }, DELTA].map((event) => messagesUsage.hasOutput(event))).toEqual([
      false,
      false,
      true,
    ]);
  });
});
