import { findRefusalCause } from '../../../providers/protocol-error.ts';
import { wrongFieldType } from '../../admission/request-body.ts';
import { toOpenAiError, toUpstreamError } from '../../openai-errors.ts';
import type { Surface } from '../../surface.ts';
import { findResponsesError, toResponsesErrorEvent } from './errors.ts';
import {
  createResponsesProgress,
  findResponseId,
  hasResponsesError,
  isResponsesResponse,
} from './response-shape.ts';
import {
  checkSharedPayerResponses,
  RESPONSES_DROPPED_FIELDS,
  RESPONSES_SHARED_PAYER_FIELDS,
} from './shared-payer.ts';
import { responsesUsage } from './usage.ts';

/** OpenAI's Responses (https://platform.openai.com/docs/api-reference/responses). */
export const openAiResponses: Surface = {
  name: 'responses',
  protocolName: 'Responses',
  interpretedFields: [
    ...['model', 'stream', 'stream_options', 'max_output_tokens', 'tools', 'store', 'background', 'include'],
    ...['previous_response_id', 'conversation', 'prompt'],
  ],
  sharedPayerFields: RESPONSES_SHARED_PAYER_FIELDS,
  droppedFields: RESPONSES_DROPPED_FIELDS,
  checkSharedPayerValues: checkSharedPayerResponses,
  endOfStream: null,
  hasEventTypes: true,
  keepAlive: ': keep-alive\n\n',
  isResponse: isResponsesResponse,
  hasError: hasResponsesError,
  findError: findResponsesError,
  findRefusalCause,
  prepareProgress: () => createResponsesProgress,
  usage: responsesUsage,
  toUpstreamError,
  toError: toOpenAiError,
  toErrorEvent: toResponsesErrorEvent,
  storedResponses: {
    findPrevious({ previous_response_id: id }) {
      if (id === undefined || id === null) return undefined;
      if (typeof id !== 'string') throw wrongFieldType('previous_response_id', 'a string');
      return id;
    },
    isStored: ({ store }) => store !== false,
    findId: findResponseId,
  },
};
