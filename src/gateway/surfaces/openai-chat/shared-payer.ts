import { fieldNotAllowed, foldName, wrongFieldType } from '../../admission/request-body.ts';
import { walkSharedPayerBody } from './shared-payer-walk.ts';

/** Fields that shape this response only and use no stored objects or hosted tools. */
export const SHARED_PAYER_FIELDS: ReadonlySet<string> = new Set([
  'frequency_penalty',
  'function_call',
  'functions',
  'logit_bias',
  'logprobs',
  'max_completion_tokens',
  'max_tokens',
  'messages',
  'model',
  'n',
  'parallel_tool_calls',
  'prediction',
  'presence_penalty',
  'reasoning_effort',
  'response_format',
  'safety_identifier',
  'seed',
  'stop',
  'store',
  'stream',
  'stream_options',
  'temperature',
  'tool_choice',
  'tools',
  'top_logprobs',
  'top_p',
  'user',
  'verbosity',
]);

const isAnything = () => true;

/**
 * Fields that SDKs and agents send by themselves. Without them the response is the same, or at most cheaper; they are
 * left out, since their values belong to the account (caches, stored metadata) or to another vendor's API.
 */
export const DROPPED_FIELDS: ReadonlyMap<string, (value: unknown) => boolean> = new Map([
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

const MAX_CHOICES = 8;
const MAX_OUTPUT_TOKENS = 128_000;

/**
 * @returns the number of members of all objects.
 * @throws AppError `field_not_allowed`, `validation_failed` for values that a shared payer does not accept.
 */
export function checkSharedPayerValues(body: Readonly<Record<string, unknown>>): number {
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
  return walkSharedPayerBody(body);
}

function isTextOnly(value: unknown): boolean {
  return value === null || (Array.isArray(value) && value.every((one) => one === 'text'));
}

/** Tools that the client runs; all other types run on the payer's account. */
const CLIENT_SIDE_TOOLS = new Set<unknown>(['function', 'custom']);

function refuseHostedTool(tool: unknown, field: string): void {
  // The member must be spelled exactly `type`: lax parsers accept `Type` as well.
  const types = listMembers(tool).filter(([name]) => foldName(name) === 'type');
  const [name, type] = types[0] ?? [];
  if (types.length !== 1 || name !== 'type' || !CLIENT_SIDE_TOOLS.has(type)) throw fieldNotAllowed(field);
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

function refuseNumberAbove(value: unknown, field: string, max: number): void {
  if (value === undefined || value === null) return;
  if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > max)
    throw wrongFieldType(field, `a whole number from 1 to ${max} where the system pays`);
}

function toArray(value: unknown, field: string): unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw wrongFieldType(field, 'an array');
  return value;
}

/** The members of an object; an empty list for any other value. */
function listMembers(value: unknown): [string, unknown][] {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.entries(value) : [];
}
