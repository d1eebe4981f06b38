import { AppError } from '../lib/errors.ts';
import type { ChatRequest } from './chat-request.ts';

/**
 * Fields by which a body steers a proxy (LiteLLM and its like) to another address, key or configuration.
 * Credentials come from the vault or the operator, never from a request.
 */
const STEERING_FIELDS = new Set([
  'api_key',
  'api_base',
  'api_type',
  'api_version',
  'base_url',
  'custom_llm_provider',
  'extra_body',
  'extra_headers',
  'extra_query',
  'fallbacks',
  'headers',
  'model_list',
  'user_config',
]);

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
const CLIENT_SIDE_TOOLS = new Set(['function', 'custom']);

/**
 * The rule for a user's own key: everything passes, except steering fields where the operator set the
 * upstream's address (it may be a proxy that holds keys of its own).
 * @throws AppError `field_not_allowed` naming the field.
 */
export function checkOwnKeyBody(request: ChatRequest, addressIsOperators: boolean): void {
  if (!addressIsOperators) return;
  for (const name of request.fieldNames) {
    if (STEERING_FIELDS.has(name.toLowerCase())) throw notAllowed(name);
  }
}

/**
 * The rule for a shared payer (organization or system): known fields only, no reference to objects stored
 * on the shared account, no hosted tools.
 * @param extraFields what the operator allows beyond the list; steering fields stay refused.
 * @throws AppError `field_not_allowed` naming the field; `ambiguous_field`.
 */
export function checkSharedPayerBody(request: ChatRequest, extraFields: readonly string[]): void {
  // What is inspected here must be what the upstream reads, in every object of the body.
  if (request.repeatsMembers) {
    throw new AppError('ambiguous_field', 'An object in the body has two members of one name.');
  }
  for (const name of request.fieldNames) {
    if (STEERING_FIELDS.has(name.toLowerCase())) throw notAllowed(name);
    if (!SHARED_PAYER_FIELDS.has(name) && !extraFields.includes(name)) throw notAllowed(name);
  }
  if (request.value['store'] === true) throw notAllowed('store');
  for (const tool of asArray(request.value['tools'])) {
    const type = member(tool, 'type');
    if (typeof type !== 'string' || !CLIENT_SIDE_TOOLS.has(type)) throw notAllowed('tools');
  }
  for (const message of asArray(request.value['messages'])) refuseStoredObjects(message);
}

/** Uploaded files and earlier audio answers are named by id and belong to the account, not to the user. */
function refuseStoredObjects(message: unknown): void {
  if (member(member(message, 'audio'), 'id') !== undefined) throw notAllowed('messages.audio.id');
  for (const part of asArray(member(message, 'content'))) {
    if (member(member(part, 'file'), 'file_id') !== undefined)
      throw notAllowed('messages.content.file.file_id');
    if (member(part, 'file_id') !== undefined) throw notAllowed('messages.content.file_id');
  }
}

function asArray(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function notAllowed(field: string): AppError {
  // The name is the client's text: shortened, and quoted as JSON so that it cannot dress up as ours.
  const shown = JSON.stringify(field.slice(0, 64));
  return new AppError('field_not_allowed', `The field ${shown} is not allowed for this payer and address.`, {
    errors: [{ path: field.slice(0, 64), message: 'is not allowed here' }],
  });
}
