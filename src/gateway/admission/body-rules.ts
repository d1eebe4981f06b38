import { AppError } from '../../lib/errors.ts';
import { wrongFieldType, type ChatRequest } from '../surfaces/openai-chat/request.ts';
import { foldName, isSteeringField } from './field-names.ts';

/** What a request paid by someone else may carry: what shapes this one answer, and nothing stored or hosted. */
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

/** Tools that the client itself runs; every other type runs on the payer's account. */
const CLIENT_SIDE_TOOLS = new Set<unknown>(['function', 'custom']);

/**
 * The rule for a user's own key: everything passes, except steering fields where the operator set the
 * upstream's address (it may be a proxy that holds keys of its own).
 * @throws AppError `field_not_allowed` naming the field.
 */
export function checkPersonalKeyBody(request: ChatRequest, isOperatorAddress: boolean): void {
  if (!isOperatorAddress) return;
  for (const name of request.fieldNames) {
    if (isSteeringField(name)) throw fieldNotAllowed(name);
  }
}

/**
 * The rule for a shared payer (organization or system): known fields only, no reference to objects stored
 * on the shared account, no hosted tools.
 * @param extraFields what the operator allows beyond the list; steering fields stay refused.
 * @throws AppError `field_not_allowed` naming the field; `ambiguous_field`; `validation_failed`.
 */
export function checkSharedPayerBody(request: ChatRequest, extraFields: readonly string[]): void {
  // What is inspected here must be what the upstream reads, in every object of the body.
  if (request.hasDuplicateMembers) {
    throw new AppError('ambiguous_field', 'An object in the body has two members of one name.');
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
  // Only a client-side type under exactly this name: a lax reader takes `Type` for it, too.
  const types = listMembers(tool).filter(([name]) => foldName(name) === 'type');
  const [name, type] = types[0] ?? [];
  if (types.length !== 1 || name !== 'type' || !CLIENT_SIDE_TOOLS.has(type)) throw fieldNotAllowed('tools');
}

/** Uploaded files and earlier audio answers are named by id and belong to the account, not to the user. */
function refuseStoredObjects(message: unknown): void {
  if (typeof message !== 'object' || message === null || Array.isArray(message))
    throw wrongFieldType('messages', 'an array of objects');
  for (const [name, value] of listMembers(message)) {
    if (foldName(name) === 'content' && !isMessageContent(value))
      throw wrongFieldType('messages.content', 'a string, null or an array');
  }
  refuseStoredIds(message, 'messages', false);
}

/** Looks at every depth: where a reference may stand differs from upstream to upstream. */
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

/** The members of an object; of any other value none. */
function listMembers(value: unknown): [string, unknown][] {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.entries(value) : [];
}

function fieldNotAllowed(field: string): AppError {
  // The name is the client's text: shortened, and quoted as JSON so that it cannot dress up as ours.
  const shown = JSON.stringify(field.slice(0, 64));
  return new AppError('field_not_allowed', `The field ${shown} is not allowed for this payer and address.`, {
    errors: [{ path: field.slice(0, 64), message: 'is not allowed here' }],
  });
}
