import { findProtocolError, findRefusalCause } from '../../../providers/protocol-error.ts';
import { toOpenAiError, toOpenAiErrorEvent, toUpstreamError } from '../../openai-errors.ts';
import type { Surface } from '../../surface.ts';
import { hasEmbeddingsError, isEmbeddingsResponse } from './response-shape.ts';
import { checkEmbeddingsValues, EMBEDDINGS_FIELDS } from './shared-payer.ts';
import { withoutVectors } from './vectors.ts';
import { embeddingsUsage } from './usage.ts';

/** OpenAI's embeddings. The protocol has no streams. */
export const embeddings: Surface = {
  name: 'embeddings',
  protocolName: 'embeddings',
  interpretedFields: ['model'],
  sharedPayerFields: EMBEDDINGS_FIELDS,
  // SDKs and frameworks send no other fields by themselves.
  droppedFields: new Map(),
  checkSharedPayerValues: checkEmbeddingsValues,
  hasNoStreams: true,
  endOfStream: null,
  hasEventTypes: false,
  keepAlive: '',
  withoutVectors,
  isResponse: isEmbeddingsResponse,
  hasError: hasEmbeddingsError,
  findError: findProtocolError,
  findRefusalCause,
  prepareProgress: () => () => ({ add: () => undefined, isFinished: () => false }),
  usage: embeddingsUsage,
  toUpstreamError,
  toError: toOpenAiError,
  toErrorEvent: toOpenAiErrorEvent,
};
