import { findTopLevelMembers } from '../../../lib/json.ts';
import { isObject } from '../../../providers/provider.ts';
import type { TokenUsage } from '../../../usage/service.ts';
import type { UsageProtocol, UsageReader } from '../../surface.ts';
import { NO_USAGE, readStatedCost, readTokenCount, toServedModel, toTokenCount } from '../../token-usage.ts';

/** Usage in chat completions. A stream reports it only where the request asks for it. */
export const chatUsage: UsageProtocol = {
  createReader,
  hasOutput,
  streamRequest: { addTo: askForUsage, isUsageOnly },
};

/** Some servers report usage in each chunk, so that the last report counts. Groq reports it in `x_groq`. */
function createReader(): UsageReader {
  let usage = NO_USAGE;
  return {
    add(value) {
      if (!isObject(value)) return;
      const { x_groq: groq } = value;
      const reported = isObject(groq) && !isObject(value['usage']) ? groq['usage'] : value['usage'];
      const servedModel = toServedModel(value['model']) ?? usage.servedModel;
      usage = { ...(isObject(reported) ? toUsage(reported) : usage), servedModel };
    },
    read: () => usage,
  };
}

function toUsage(usage: Readonly<Record<string, unknown>>): TokenUsage {
  const { prompt_tokens_details: input, completion_tokens_details: output } = usage;
  return {
    ...NO_USAGE,
    inputTokens: toTokenCount(usage['prompt_tokens']),
    // DeepSeek's name is the second one.
    cachedTokens: readTokenCount(input, 'cached_tokens') ?? toTokenCount(usage['prompt_cache_hit_tokens']),
    cacheWriteTokens: readTokenCount(input, 'cache_write_tokens'),
    outputTokens: toTokenCount(usage['completion_tokens']),
    reasoningTokens: readTokenCount(output, 'reasoning_tokens'),
    costUsd: readStatedCost(usage),
  };
}

/** Members of a delta with text, reasoning or data of a tool. The first delta has the role alone. */
const OUTPUT_MEMBERS = [
  ...['content', 'refusal', 'reasoning', 'reasoning_content', 'reasoning_details'],
  ...['tool_calls', 'function_call', 'audio'],
];

function hasOutput(event: unknown): boolean {
  const choices = isObject(event) && Array.isArray(event['choices']) ? event['choices'] : [];
  return choices.some((choice: unknown) => {
    const delta = isObject(choice) ? choice['delta'] : undefined;
    return isObject(delta) && OUTPUT_MEMBERS.some((name) => hasContent(delta[name]));
  });
}

function hasContent(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : Boolean(value);
}

const INCLUDE_USAGE = { include_usage: true };

/** `stream_options.include_usage` of OpenAI's API reference. */
function askForUsage(body: Buffer): Buffer {
  const { members, afterBrace } = findTopLevelMembers(body);
  const member = members.find(({ name }) => name === 'stream_options');
  if (member === undefined) {
    const text = `"stream_options":${JSON.stringify(INCLUDE_USAGE)},`;
    return replaceBytes(body, afterBrace, afterBrace, text);
  }
  const { valueStart, valueEnd } = member;
  const options = JSON.parse(body.toString('utf8', valueStart, valueEnd)) as unknown;
  const isReplaceable = options === null || (isObject(options) && options['include_usage'] !== true);
  if (!isReplaceable) return body;
  return replaceBytes(body, valueStart, valueEnd, JSON.stringify({ ...options, ...INCLUDE_USAGE }));
}

function replaceBytes(bytes: Buffer, start: number, end: number, text: string): Buffer {
  return Buffer.concat([bytes.subarray(0, start), Buffer.from(text), bytes.subarray(end)]);
}

/** The chunk without choices that `include_usage` adds. Azure's first chunk has no choices either, and no usage. */
function isUsageOnly(event: unknown): boolean {
  if (!isObject(event)) return false;
  const { choices, usage } = event;
  return Array.isArray(choices) && choices.length === 0 && isObject(usage);
}
