import { fieldNotAllowed, foldName, wrongFieldType } from '../../admission/request-body.ts';
import {
  listMembers,
  MAX_OUTPUT_TOKENS,
  refuseHostedTool,
  refuseNumberAbove,
  toArray,
  walkSharedPayerBody,
  type BodyShape,
} from '../../admission/shared-payer-values.ts';

/** Fields that shape this response only and use no stored objects or hosted tools. */
export const CHAT_SHARED_PAYER_FIELDS: ReadonlySet<string> = new Set([
  ...['frequency_penalty', 'function_call', 'functions', 'logit_bias', 'logprobs', 'max_completion_tokens'],
  ...['max_tokens', 'messages', 'model', 'n', 'parallel_tool_calls', 'prediction', 'presence_penalty'],
  ...['reasoning_effort', 'response_format', 'safety_identifier', 'seed', 'stop', 'store', 'stream'],
  ...['stream_options', 'temperature', 'tool_choice', 'tools', 'top_logprobs', 'top_p', 'user'],
  ...['verbosity'],
]);

const isAnything = () => true;

/**
 * Fields that SDKs and agents send by themselves. They are left out, since their values belong to the account (caches,
 * stored metadata) or to another vendor's API. Without them the model answers as it does by default, which can cost more
 * than the request meant (`reasoning: {enabled: false}`) within the limit of output tokens; the response names them.
 */
export const CHAT_DROPPED_FIELDS: ReadonlyMap<string, (value: unknown) => boolean> = new Map([
  // OpenAI
  ['metadata', isAnything],
  ['prompt_cache_key', isAnything],
  ['prompt_cache_retention', isAnything],
  // Another tier has another price, and another modality another kind of response.
  ['service_tier', (value) => [null, 'auto', 'default'].includes(value as string | null)],
  ['modalities', isTextOnly],
  ['audio', (value) => value === null],
  // OpenRouter
  ['reasoning', isAnything],
  ['include_reasoning', isAnything],
  ['usage', isAnything],
  ['session_id', isAnything],
  // Anthropic and DeepSeek through OpenAI's protocol
  ['thinking', isAnything],
  ['cache_control', isAnything],
]);

const CHAT_BODY: BodyShape = {
  kindByField: new Map([
    ['messages', 'messages'],
    ['prediction', 'message'],
    ['tools', 'schema'],
    ['functions', 'schema'],
    ['response_format', 'schema'],
  ]),
  contentMembers: new Set(['content']),
  // A `file` is none: routers read each PDF, also one at an address, with a tool that costs per page.
  inlineParts: new Set(['text', 'image_url', 'input_audio', 'refusal']),
};

const MAX_CHOICES = 8;

/**
 * @returns the number of members of all objects.
 * @throws AppError `field_not_allowed`, `validation_failed` for values that a shared payer does not accept.
 */
export function checkChatSharedPayerValues(body: Readonly<Record<string, unknown>>): number {
  const { store, tools, functions, messages } = body;
  if (store !== undefined && store !== null && store !== false) throw fieldNotAllowed('store');
  for (const tool of toArray(tools, 'tools')) refuseHostedTool(tool, 'tools');
  for (const one of toArray(functions ?? undefined, 'functions')) refuseHostedFunction(one, 'functions');
  refuseHostedFunction(body['function_call'], 'function_call');
  refuseHostedChoice(body['tool_choice']);
  refuseNumberAbove(body['n'], 'n', MAX_CHOICES);
  for (const name of ['max_tokens', 'max_completion_tokens'])
    refuseNumberAbove(body[name], name, MAX_OUTPUT_TOKENS);
  toArray(messages, 'messages');
  return walkSharedPayerBody(body, CHAT_BODY);
}

function isTextOnly(value: unknown): boolean {
  return value === null || (Array.isArray(value) && value.every((one) => one === 'text'));
}

/** A function of the older form has no type. With one, an upstream may read it as a tool. */
function refuseHostedFunction(value: unknown, field: string): void {
  if (listMembers(value).some(([name]) => foldName(name) === 'type')) refuseHostedTool(value, field);
}

/** A word (`auto`), a client-side tool, or a list of these. */
function refuseHostedChoice(choice: unknown): void {
  const members = listMembers(choice);
  if (members.length === 0) {
    const isWord = choice === undefined || choice === null || typeof choice === 'string';
    if (!isWord) throw wrongFieldType('tool_choice', 'a word or a tool');
    return;
  }
  const { type, allowed_tools: allowed } = Object.fromEntries(members);
  if (type !== 'allowed_tools') {
    refuseHostedTool(choice, 'tool_choice');
    return;
  }
  const { tools, mode: _mode, ...others } = Object.fromEntries(listMembers(allowed));
  if (members.length !== 2 || Object.keys(others).length > 0 || !Array.isArray(tools))
    throw fieldNotAllowed('tool_choice');
  for (const tool of tools) refuseHostedTool(tool, 'tool_choice');
}
