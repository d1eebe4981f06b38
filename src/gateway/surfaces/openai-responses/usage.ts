import { isObject } from '../../../providers/provider.ts';
import type { TokenUsage } from '../../../usage/service.ts';
import type { UsageProtocol, UsageReader } from '../../surface.ts';
import { NO_USAGE, readStatedCost, readTokenCount, toServedModel, toTokenCount } from '../../token-usage.ts';

/** Usage in OpenAI's Responses. Each stream reports it in its last event. */
export const responsesUsage: UsageProtocol = { createReader, hasOutput };

/** Reads a response, or the `response` in an event: `response.created` names the model, the last one has the usage. */
function createReader(): UsageReader {
  let usage = NO_USAGE;
  return {
    add(value) {
      if (!isObject(value)) return;
      const response = isObject(value['response']) ? value['response'] : value;
      const { usage: reported } = response;
      const servedModel = toServedModel(response['model']) ?? usage.servedModel;
      usage = { ...(isObject(reported) ? toUsage(reported) : usage), servedModel };
    },
    read: () => usage,
  };
}

function toUsage(usage: Readonly<Record<string, unknown>>): TokenUsage {
  const { input_tokens_details: input, output_tokens_details: output } = usage;
  return {
    ...NO_USAGE,
    inputTokens: toTokenCount(usage['input_tokens']),
    cachedTokens: readTokenCount(input, 'cached_tokens'),
    cacheWriteTokens: readTokenCount(input, 'cache_write_tokens'),
    outputTokens: toTokenCount(usage['output_tokens']),
    reasoningTokens: readTokenCount(output, 'reasoning_tokens'),
    costUsd: readStatedCost(usage),
  };
}

/** All events with a part of the output end in `.delta`: text, refusals, reasoning, arguments of functions. */
function hasOutput(event: unknown): boolean {
  const type = isObject(event) ? event['type'] : undefined;
  return typeof type === 'string' && type.endsWith('.delta');
}
