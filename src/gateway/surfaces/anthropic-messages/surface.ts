import { toSseEvent } from '../../../http/sse.ts';
import { findRefusalCause } from '../../../providers/protocol-error.ts';
import type { Surface } from '../../surface.ts';
import {
  findAnthropicError,
  toAnthropicError,
  toAnthropicErrorEvent,
  toAnthropicUpstreamError,
} from './errors.ts';
import {
  hasMessagesError,
  isMessagesResponse,
  isTokenCount,
  prepareMessagesProgress,
} from './response-shape.ts';
import {
  checkMessagesSharedPayerValues,
  COUNTED_FIELDS,
  MESSAGES_DROPPED_FIELDS,
  MESSAGES_SHARED_PAYER_FIELDS,
} from './shared-payer.ts';
import { messagesUsage } from './usage.ts';

/** Anthropic's Messages. */
export const anthropicMessages: Surface = {
  name: 'messages',
  protocolName: 'Messages',
  // Anthropic refuses a request without a version. SDKs send it; this is the only one so far.
  defaultHeaders: { 'anthropic-version': '2023-06-01' },
  interpretedFields: ['model', 'stream', 'max_tokens', 'tools'],
  sharedPayerFields: MESSAGES_SHARED_PAYER_FIELDS,
  droppedFields: MESSAGES_DROPPED_FIELDS,
  checkSharedPayerValues: checkMessagesSharedPayerValues,
  endOfStream: null,
  hasEventTypes: true,
  keepAlive: toSseEvent('{"type": "ping"}', 'ping'),
  isResponse: isMessagesResponse,
  hasError: hasMessagesError,
  findError: findAnthropicError,
  findRefusalCause,
  prepareProgress: prepareMessagesProgress,
  usage: messagesUsage,
  toUpstreamError: toAnthropicUpstreamError,
  toError: toAnthropicError,
  toErrorEvent: toAnthropicErrorEvent,
};

/** Counts the input tokens of a message that is not created. */
export const anthropicTokenCount: Surface = {
  ...anthropicMessages,
  pathSuffix: '/count_tokens',
  hasNoStreams: true,
  sharedPayerFields: COUNTED_FIELDS,
  isResponse: isTokenCount,
};
