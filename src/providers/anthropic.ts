import { isObject, LIST_MODELS, openAiCompatible, type KeyTestResponse } from './provider.ts';

/** Anthropic through its endpoint that speaks OpenAI's protocol. */
export const anthropic = openAiCompatible({
  id: 'anthropic',
  name: 'Anthropic',
  baseUrl: 'https://api.anthropic.com/v1',
  docsUrl: 'https://platform.claude.com/settings/keys',
  // `sk-ant-admin` keys administer an account, `oat` and `ort` tokens belong to a subscription: neither is for the API.
  key: {
    hint: 'sk-ant-api03-...',
    pattern: /^sk-ant-(?!admin|oat|ort)[A-Za-z0-9_-]{16,}$/,
    prefix: 'sk-ant-',
  },
  keyTest: {
    ...LIST_MODELS,
    // The list is part of Anthropic's own API, which reads the key from a header of its own.
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
 * Anthropic tells of an empty balance and of limits that the owner set with a 400 that only its text sets
 * apart from a faulty request (https://platform.claude.com/docs/en/api/errors).
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
