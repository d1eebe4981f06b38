import { completeOneToken, isObject, openAiCompatible, type KeyTestOutcome } from './provider.ts';

/**
 * Perplexity ended its chat completions on 2026-09-27; what its keys serve since is the Agent API, which
 * speaks OpenAI's Responses (https://docs.perplexity.ai/docs/agent-api/migrate-from-sonar/overview). Chat
 * completions are left for its Router API, in private preview: the operator's address
 * `https://api.perplexity.ai/router/v1`.
 */
export const perplexity = openAiCompatible({
  id: 'perplexity',
  name: 'Perplexity',
  baseUrl: 'https://api.perplexity.ai/v1',
  docsUrl: 'https://console.perplexity.ai',
  key: { hint: 'pplx-...', pattern: /^pplx-[A-Za-z0-9_-]{16,}$/, prefix: 'pplx-' },
  keyTest: {
    ...completeOneToken('perplexity/sonar'),
    path: '/responses',
    // Without tools no search is charged; 16 is the least that the protocol lets one ask for.
    body: { model: 'perplexity/sonar', input: '1', max_output_tokens: 16 },
    isExpectedBody: (body) =>
      isObject(body) &&
      body['object'] === 'response' &&
      Array.isArray(body['output']) &&
      body['status'] !== 'failed',
    findOutcome: ({ status, body }) => (status === 401 ? toRefusalOutcome(body) : undefined),
  },
  modelPatterns: [/^sonar(-[-\w]+)?$/],
  models: ['perplexity/sonar'],
});

/** Perplexity answers 401 to a key whose account has run out of credit, too, and often with a page of HTML. */
function toRefusalOutcome(body: unknown): KeyTestOutcome {
  const error = isObject(body) ? body['error'] : undefined;
  if (isObject(error) && error['type'] === 'insufficient_quota') {
    return {
      status: 'no_credit',
      message: 'Perplexity knows this key, but its account has no credit left. Buy credit, then test again.',
    };
  }
  return {
    status: 'invalid',
    message:
      'Perplexity refuses this key, which it also does when its account has no credit. Check the credit, and that the key was copied whole and is not revoked.',
  };
}
