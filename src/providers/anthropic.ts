import {
  bearerHeaders,
  isObject,
  LIST_MODELS,
  openAiCompatible,
  SURFACE_PATHS,
  type KeyTestResponse,
} from './provider.ts';

/** Anthropic's own API, and its endpoint for OpenAI's chat completions. */
export const anthropic = openAiCompatible({
  id: 'anthropic',
  name: 'Anthropic',
  reportsStreamUsage: true,
  baseUrl: 'https://api.anthropic.com/v1',
  docsUrl: 'https://platform.claude.com/settings/keys',
  surfaces: { messages: SURFACE_PATHS.messages },
  // `sk-ant-admin` keys administer an account, `oat` and `ort` tokens belong to a subscription. Neither works with the API.
  key: {
    hint: 'sk-ant-api03-...',
    pattern: /^sk-ant-(?!admin|oat|ort)[A-Za-z0-9_-]{16,}$/,
    prefix: 'sk-ant-',
  },
  // Messages have the key in `x-api-key`; the endpoint for OpenAI's protocol reads a bearer token alone.
  authorize: (secret, surface) => (surface === 'messages' ? { 'x-api-key': secret } : bearerHeaders(secret)),
  keyTest: {
    ...LIST_MODELS,
    // The model list is part of Anthropic's own API, which expects the key in `x-api-key`.
    authorize: (secret) => ({ 'x-api-key': secret, 'anthropic-version': '2023-06-01' }),
    findOutcome: (response) =>
      isOutOfCredit(response)
        ? {
            status: 'no_credit',
            message:
              'Anthropic accepts this key, but its account has no credit left or has reached its spending limit. Add credit, or raise the limit, in the Claude Console.',
          }
        : undefined,
  },
  modelPatterns: [/^claude-[-.\w]+$/],
  models: [
    'claude-opus-5-5',
    'claude-sonnet-5-5',
    'claude-haiku-5-5',
    'claude-opus-4-7',
    'claude-sonnet-4-6',
    'claude-haiku-4-5',
  ],
});

/**
 * Anthropic answers 400 for an empty balance and for a spending limit of the account. Only the error text differs
 * from that of an invalid request (https://platform.claude.com/docs/en/api/errors).
 */
function isOutOfCredit({ status, body }: KeyTestResponse): boolean {
  const error = isObject(body) ? body['error'] : undefined;
  const message = isObject(error) ? error['message'] : undefined;
  return (
    status === 400 &&
    typeof message === 'string' &&
    /credit balance is too low|reached your specified (workspace )?API usage limits/.test(message)
  );
}
