import { findRefusalCause } from './protocol-error.ts';
import {
  completeOneToken,
  isObject,
  openAiCompatible,
  SURFACE_PATHS,
  type KeyTestOutcome,
} from './provider.ts';

/**
 * Perplexity ended its chat completions on 2026-09-27. Since then its keys work with the Agent API, which uses
 * OpenAI's Responses protocol (https://docs.perplexity.ai/docs/agent-api/migrate-from-sonar/overview). Only its
 * Router API, in private preview, still has chat completions; the operator sets its address
 * `https://api.perplexity.ai/router/v1`.
 */
export const perplexity = openAiCompatible({
  id: 'perplexity',
  name: 'Perplexity',
  baseUrl: 'https://api.perplexity.ai/v1',
  docsUrl: 'https://console.perplexity.ai',
  surfaces: { embeddings: SURFACE_PATHS.embeddings, responses: SURFACE_PATHS.responses },
  key: { hint: 'pplx-...', pattern: /^pplx-[A-Za-z0-9_-]{16,}$/, prefix: 'pplx-' },
  keyTest: {
    ...completeOneToken('perplexity/sonar'),
    path: SURFACE_PATHS.responses,
    // Without tools no search is charged; 16 is the minimum of the protocol.
    body: { model: 'perplexity/sonar', input: '1', max_output_tokens: 16 },
    isExpectedBody: (body) =>
      isObject(body) &&
      body['object'] === 'response' &&
      Array.isArray(body['output']) &&
      body['status'] !== 'failed',
    findOutcome: ({ status, body }) => (status === 401 ? toRefusalOutcome(body) : undefined),
  },
  modelPatterns: [/^sonar(-[-\w]+)?$/, /^pplx-embed-[-.\w]+$/],
  models: ['perplexity/sonar'],
});

/** Perplexity answers 401 also when the account has no credit, often with an HTML page. */
function toRefusalOutcome(body: unknown): KeyTestOutcome | undefined {
  const error = isObject(body) ? body['error'] : undefined;
  if (isObject(error) && error['type'] === 'insufficient_quota') {
    return {
      status: 'no_credit',
      message:
        'Perplexity accepts this key, but its account has no credit left. Buy credit, then test again.',
    };
  }
  if (findRefusalCause(body) === 'request') return undefined;
  return {
    status: 'invalid',
    message:
      'Perplexity refuses this key, which it also does when its account has no credit. Check the credit, and that the key was copied completely and is not revoked.',
  };
}
