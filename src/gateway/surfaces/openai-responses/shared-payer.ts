import { isObject } from '../../../providers/provider.ts';
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
export const RESPONSES_SHARED_PAYER_FIELDS: ReadonlySet<string> = new Set([
  ...['include', 'input', 'instructions', 'max_output_tokens', 'max_tool_calls', 'model'],
  ...['parallel_tool_calls', 'reasoning', 'safety_identifier', 'store', 'stream', 'stream_options'],
  ...['temperature', 'text', 'tool_choice', 'tools', 'top_logprobs', 'top_p', 'truncation', 'user'],
]);

const isAnything = () => true;
const isNull = (value: unknown) => value === null;

/**
 * Fields that SDKs and agents send by themselves, and whose values belong to the account (caches, stored metadata), and
 * references to stored objects that refer to none. They are left out.
 */
export const RESPONSES_DROPPED_FIELDS: ReadonlyMap<string, (value: unknown) => boolean> = new Map([
  ['metadata', isAnything],
  ['client_metadata', isAnything],
  ['prompt_cache_key', isAnything],
  ['prompt_cache_retention', isAnything],
  // Another tier has another price.
  ['service_tier', (value: unknown) => [null, 'auto', 'default'].includes(value as string | null)],
  ['background', (value: unknown) => value === null || value === false],
  ['previous_response_id', isNull],
  ['conversation', isNull],
  ['prompt', isNull],
]);

const RESPONSES_BODY: BodyShape = {
  kindByField: new Map([
    ['input', 'messages'],
    ['tools', 'schema'],
    ['text', 'schema'],
  ]),
  contentMembers: new Set(['content', 'output', 'summary']),
  // An `input_file` is none: providers read its pages as images, or it names a stored file.
  inlineParts: new Set([
    ...['input_text', 'input_image', 'input_audio', 'output_text', 'refusal', 'text'],
    ...['summary_text', 'reasoning_text'],
  ]),
};

/** Additional output that is part of the answer itself. All others belong to hosted tools. */
const INCLUDED: ReadonlySet<unknown> = new Set([
  'reasoning.encrypted_content',
  'message.output_text.logprobs',
]);

/** Items that contain their content. All others refer to stored items, or are calls of hosted tools. */
const ITEM_TYPES: ReadonlySet<unknown> = new Set([
  ...['message', 'reasoning', 'function_call', 'function_call_output'],
  ...['custom_tool_call', 'custom_tool_call_output'],
]);

/**
 * @returns the number of members of all objects.
 * @throws AppError `field_not_allowed`, `validation_failed` for values that a shared payer does not accept.
 */
export function checkSharedPayerResponses(body: Readonly<Record<string, unknown>>): number {
  const { store, tools, include, input, instructions } = body;
  if (store !== undefined && store !== null && store !== false) throw fieldNotAllowed('store');
  for (const tool of toArray(tools ?? undefined, 'tools')) refuseHostedTool(tool, 'tools');
  for (const name of toArray(include ?? undefined, 'include'))
    if (!INCLUDED.has(name)) throw fieldNotAllowed('include');
  refuseHostedChoice(body['tool_choice']);
  refuseNumberAbove(body['max_output_tokens'], 'max_output_tokens', MAX_OUTPUT_TOKENS);
  if (typeof (instructions ?? '') !== 'string') throw wrongFieldType('instructions', 'a string');
  if (typeof input !== 'string') for (const item of toArray(input, 'input')) checkItem(item);
  return walkSharedPayerBody(body, RESPONSES_BODY);
}

function checkItem(item: unknown): void {
  if (!isObject(item)) throw wrongFieldType('input', 'a string or an array of objects');
  const typeNames = Object.keys(item).filter((name) => foldName(name) === 'type');
  const { type } = item;
  // A message needs no type. Without its content it would be a reference to a stored item.
  const isTyped = typeNames.length === 1 && typeNames[0] === 'type' && ITEM_TYPES.has(type);
  const isMessage = (typeNames.length === 0 || type === 'message') && 'role' in item && 'content' in item;
  if (!isMessage && (!isTyped || type === 'message')) throw fieldNotAllowed('input.type');
  if (type === 'reasoning' && !containsReasoning(item)) throw fieldNotAllowed('input.id');
}

/** False for the id of a stored item alone. */
function containsReasoning({ id, encrypted_content: encrypted, content }: Record<string, unknown>): boolean {
  const isReference = id !== undefined && id !== null;
  return !isReference || isFilled(encrypted) || isFilled(content);
}

function isFilled(value: unknown): boolean {
  return (typeof value === 'string' || Array.isArray(value)) && value.length > 0;
}

/** A word (`auto`), a client-side tool, or a list of these. */
function refuseHostedChoice(choice: unknown): void {
  if (choice === undefined || choice === null || typeof choice === 'string') return;
  const { type, mode: _mode, tools, ...others } = Object.fromEntries(listMembers(choice));
  if (type !== 'allowed_tools') {
    refuseHostedTool(choice, 'tool_choice');
    return;
  }
  if (Object.keys(others).length > 0 || !Array.isArray(tools)) throw fieldNotAllowed('tool_choice');
  for (const tool of tools) refuseHostedTool(tool, 'tool_choice');
}
