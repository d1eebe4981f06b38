import { findProtocolError, findRefusalCause } from '../../../providers/protocol-error.ts';
import type { Surface } from '../../surface.ts';
import { toOpenAiError, toOpenAiErrorEvent, toUpstreamError } from '../../openai-errors.ts';
import { hasChatError, isChatResponse, prepareChatProgress } from './response-shape.ts';
import { checkChatSharedPayerValues, CHAT_DROPPED_FIELDS, CHAT_SHARED_PAYER_FIELDS } from './shared-payer.ts';
import { chatUsage } from './usage.ts';

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
  sharedPayerFields: CHAT_SHARED_PAYER_FIELDS,
  droppedFields: CHAT_DROPPED_FIELDS,
  checkSharedPayerValues: checkChatSharedPayerValues,
  endOfStream: '[DONE]',
  hasEventTypes: false,
  keepAlive: ': keep-alive\n\n',
  isResponse: isChatResponse,
  hasError: hasChatError,
  findError: findProtocolError,
  findRefusalCause,
  prepareProgress: prepareChatProgress,
  usage: chatUsage,
  toUpstreamError,
  toError: toOpenAiError,
  toErrorEvent: toOpenAiErrorEvent,
};
