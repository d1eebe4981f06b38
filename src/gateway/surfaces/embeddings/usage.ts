import { isObject } from '../../../providers/provider.ts';
import type { UsageProtocol, UsageReader } from '../../surface.ts';
import { NO_USAGE, readStatedCost, toServedModel, toTokenCount } from '../../token-usage.ts';

/** Usage of embeddings, which are not streamed and have no output tokens. */
export const embeddingsUsage: UsageProtocol = { createReader, hasOutput: () => false };

function createReader(): UsageReader {
  let usage = NO_USAGE;
  return {
    add(value) {
      if (!isObject(value)) return;
      usage = { ...usage, servedModel: toServedModel(value['model']) };
      const { usage: reported } = value;
      if (!isObject(reported)) return;
      const inputTokens = toTokenCount(reported['prompt_tokens']) ?? toTokenCount(reported['total_tokens']);
      usage = { ...usage, inputTokens, outputTokens: 0, costUsd: readStatedCost(reported) };
    },
    read: () => usage,
  };
}
