import { fieldNotAllowed, foldName, wrongFieldType } from '../../admission/request-body.ts';
import type { Surface } from '../../surface.ts';
import { toOpenAiErrorEvent, toUpstreamError } from './errors.ts';
import { findProtocolError } from './error-shape.ts';
import { hasChatError, isChatResponse } from './response-shape.ts';
import { createChatProgress } from './stream-progress.ts';

/** OpenAI's chat completions. */
export const openAiChat: Surface = {
  name: 'chat',
  protocolName: 'chat completions',
  interpretedFields: [
    'model',
    'stream',
    'stream_options',
    'max_tokens',
    'max_completion_tokens',
    'n',
    'tools',
    'store',
  ],
  sharedPayerFields: new Set([
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
  ]),
  checkSharedPayerValues({ store, tools, messages }) {
    if (store !== undefined && store !== null && store !== false) throw fieldNotAllowed('store');
    for (const tool of toArray(tools, 'tools')) refuseHostedTool(tool);
    for (const message of toArray(messages, 'messages')) refuseStoredObjects(message);
  },
  endOfStream: '[DONE]',
  isResponse: isChatResponse,
  hasError: hasChatError,
  findError: findProtocolError,
  createProgress: createChatProgress,
  toUpstreamError,
  toErrorEvent: toOpenAiErrorEvent,
};

/** Tools that the client runs; all other types run on the payer's account. */
const CLIENT_SIDE_TOOLS = new Set<unknown>(['function', 'custom']);

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
