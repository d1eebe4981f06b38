import { isObject, LIST_MODELS, openAiCompatible, SURFACE_PATHS, type KeyTestResponse } from './provider.ts';

export const openai = openAiCompatible({
  id: 'openai',
  name: 'OpenAI',
  reportsStreamUsage: true,
  baseUrl: 'https://api.openai.com/v1',
  docsUrl: 'https://platform.openai.com/api-keys',
  surfaces: { embeddings: SURFACE_PATHS.embeddings, responses: SURFACE_PATHS.responses },
  key: {
    hint: 'sk-...',
    // User keys `sk-`, project keys `sk-proj-`, service accounts `sk-svcacct-` or `sk-` and their name, which may be
    // `or-...`. The two exceptions are the prefixes of Anthropic and OpenRouter, so that a key pasted into the wrong
    // field is refused.
    pattern: /^sk-(?!ant-|or-v1-)[A-Za-z0-9_-]{16,}$/,
    prefix: 'sk-',
  },
  keyTest: {
    ...LIST_MODELS,
    findOutcome: (response) =>
      lacksPermission(response)
        ? {
            status: 'forbidden',
            message:
              'OpenAI accepts this key, but the key may not list models, so it cannot be tested. Give it the permission to read models, or use it untested.',
          }
        : undefined,
  },
  modelPatterns: [
    // `gpt-oss-*` are open-weight models. Other providers host them, OpenAI's API does not.
    /^(ft:)?(gpt-(?!oss)|chatgpt-|codex-|computer-use-|text-embedding-)[-.:\w]+$/,
    /^(ft:)?o[1-9](-[-.:\w]+)?$/,
  ],
  models: ['gpt-6-sol', 'gpt-6-luna', 'gpt-5.4-mini', 'gpt-5.1', 'gpt-4.1', 'gpt-4o', 'gpt-4o-mini'],
});

/** OpenAI answers 401 to a key with restricted permissions, too. Only the text differs from that for an invalid key. */
function lacksPermission({ status, body }: KeyTestResponse): boolean {
  const error = isObject(body) ? body['error'] : undefined;
  const message = isObject(error) ? error['message'] : undefined;
  return status === 401 && typeof message === 'string' && message.includes('insufficient permissions');
}
