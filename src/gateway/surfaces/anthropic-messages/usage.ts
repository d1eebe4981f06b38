import { isObject } from '../../../providers/provider.ts';
import type { TokenUsage } from '../../../usage/service.ts';
import type { UsageProtocol, UsageReader } from '../../surface.ts';
import { NO_USAGE, readStatedCost, readTokenCount, toServedModel, toTokenCount } from '../../token-usage.ts';

/** Usage in Anthropic's Messages. Each stream reports it. */
export const messagesUsage: UsageProtocol = { createReader, hasOutput };

/**
 * `message_start` reports the input and the first output tokens, `message_delta` the totals, with or without the input
 * (https://platform.claude.com/docs/en/build-with-claude/streaming). A later report counts, member by member.
 */
function createReader(): UsageReader {
  let reported: Record<string, unknown> = {};
  let servedModel: string | null = null;
  return {
    add(value) {
      if (!isObject(value)) return;
      const message = isObject(value['message']) ? value['message'] : value;
      servedModel ??= toServedModel(message['model']);
      if (!isObject(message['usage'])) return;
      const known = Object.entries(message['usage']).filter(
        ([name, member]) => USAGE_MEMBERS.has(name) && member !== null,
      );
      reported = { ...reported, ...Object.fromEntries(known) };
    },
    read: () => ({ ...toUsage(reported), servedModel }),
  };
}

/** Others are dropped, so that a stream of ever new names does not grow. */
const USAGE_MEMBERS: ReadonlySet<string> = new Set([
  ...['input_tokens', 'cache_read_input_tokens', 'cache_creation_input_tokens', 'output_tokens'],
  ...['output_tokens_details', 'cost'],
]);

/** Anthropic counts cached tokens beside `input_tokens`, not in it. */
function toUsage(usage: Readonly<Record<string, unknown>>): TokenUsage {
  const cachedTokens = toTokenCount(usage['cache_read_input_tokens']);
  const cacheWriteTokens = toTokenCount(usage['cache_creation_input_tokens']);
  const uncachedTokens = toTokenCount(usage['input_tokens']);
  const inputTokens =
    uncachedTokens === null ? null : uncachedTokens + (cachedTokens ?? 0) + (cacheWriteTokens ?? 0);
  return {
    ...NO_USAGE,
    ...{ inputTokens, cachedTokens, cacheWriteTokens },
    outputTokens: toTokenCount(usage['output_tokens']),
    reasoningTokens: readTokenCount(usage['output_tokens_details'], 'thinking_tokens'),
    costUsd: readStatedCost(usage),
  };
}

function hasOutput(event: unknown): boolean {
  return isObject(event) && event['type'] === 'content_block_delta';
}
