import { AppError } from '../../lib/errors.ts';
import { wrongFieldType, type ChatRequest } from '../surfaces/openai-chat/request.ts';
import { foldName, isSteeringField } from './field-names.ts';

/** Fields that a shared payer accepts: they shape this response only and use no stored objects or hosted tools. */
const SHARED_PAYER_FIELDS = new Set([
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

/** Tools that the client runs; all other types run on the payer's account. */
const CLIENT_SIDE_TOOLS = new Set<unknown>(['function', 'custom']);

/**
 * Checks a body that a user's own key pays for. All fields are allowed, except steering fields when the operator set
 * the upstream's address, which may be a proxy with its own keys.
 * @throws AppError `field_not_allowed` naming the field.
 */
export function checkPersonalKeyBody(request: ChatRequest, isOperatorAddress: boolean): void {
  if (!isOperatorAddress) return;
  for (const name of request.fieldNames) {
    if (isSteeringField(name)) throw fieldNotAllowed(name);
  }
}

/**
 * Checks a body that a shared payer (organization or system) pays for: known fields only, no references to objects
 * stored on the shared account, no hosted tools.
 * @param extraFields fields that the operator also allows. Steering fields stay refused.
 * @throws AppError `field_not_allowed` naming the field; `ambiguous_field`; `validation_failed`.
 */
export function checkSharedPayerBody(request: ChatRequest, extraFields: readonly string[]): void {
  // The upstream must read the same values as this check, in every object of the body.
  if (request.hasDuplicateMembers) {
    throw new AppError(
      'ambiguous_field',
      'An object in the body has two members with the same name. Send each member once.',
    );
  }
  for (const name of request.fieldNames) {
    if (isSteeringField(name)) throw fieldNotAllowed(name);
    if (!SHARED_PAYER_FIELDS.has(name) && !extraFields.includes(name)) throw fieldNotAllowed(name);
  }
  const { store, tools, messages } = request.parse();
  if (store !== undefined && store !== null && store !== false) throw fieldNotAllowed('store');
  for (const tool of toArray(tools, 'tools')) refuseHostedTool(tool);
  for (const message of toArray(messages, 'messages')) refuseStoredObjects(message);
}

function refuseHostedTool(tool: unknown): void {
  // The member must be spelled exactly `type`: lax parsers accept `Type` as well.
  const types = listMembers(tool).filter(([name]) => foldName(name) === 'type');
  const [name, type] = types[0] ?? [];
  if (types.length !== 1 || name !== 'type' || !CLIENT_SIDE_TOOLS.has(type)) throw fieldNotAllowed('tools');
}

/** Ids of uploaded files and earlier audio responses belong to the account, not to the user. */
function refuseStoredObjects(message: unknown): void {
  if (typeof message !== 'object' || message === null || Array.isArray(message))
    throw wrongFieldType('messages', 'an array of objects');
  for (const [name, value] of listMembers(message)) {
    if (foldName(name) === 'content' && !isMessageContent(value))
      throw wrongFieldType('messages.content', 'a string, null or an array');
  }
  refuseStoredIds(message, 'messages', false);
}

/** Searches at every depth, since upstreams accept references in different positions. */
function refuseStoredIds(value: unknown, path: string, isInAudio: boolean): void {
  if (Array.isArray(value)) for (const item of value) refuseStoredIds(item, path, isInAudio);
  else {
    for (const [name, item] of listMembers(value)) {
      const folded = foldName(name);
      const memberPath = `${path}.${name}`;
      if (folded === 'file_id' || (isInAudio && folded === 'id')) throw fieldNotAllowed(memberPath);
      refuseStoredIds(item, memberPath, isInAudio || folded === 'audio');
    }
  }
}

function isMessageContent(value: unknown): boolean {
  return value === null || typeof value === 'string' || Array.isArray(value);
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

function fieldNotAllowed(field: string): AppError {
  // The name is client input: it is shortened and quoted as JSON, so that it cannot imitate our text.
  const shown = JSON.stringify(field.slice(0, 64));
  return new AppError('field_not_allowed', `The field ${shown} is not allowed for this payer and address.`, {
    errors: [{ path: field.slice(0, 64), message: 'is not allowed here' }],
  });
}
