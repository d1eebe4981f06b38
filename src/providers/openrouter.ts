import {
  isObject,
  LIST_MODELS,
  openAiCompatible,
  SURFACE_PATHS,
  type KeyTestResponse,
  type KeyTestOutcome,
} from './provider.ts';

/** A router to other providers' models. Its model ids start with a vendor (`openai/gpt-4o`). */
export const openrouter = openAiCompatible({
  id: 'openrouter',
  name: 'OpenRouter',
  reportsStreamUsage: true,
  baseUrl: 'https://openrouter.ai/api/v1',
  docsUrl: 'https://openrouter.ai/settings/keys',
  // https://openrouter.ai/docs/client-sdks/typescript/sdks/responses/README
  surfaces: { embeddings: SURFACE_PATHS.embeddings, responses: SURFACE_PATHS.responses },
  // The version belongs to the prefix: `sk-or-` alone also begins keys of OpenAI's service accounts. A later version is
  // accepted where it is entered for OpenRouter.
  key: { hint: 'sk-or-v1-...', pattern: /^sk-or-v[0-9]{1,3}-[A-Za-z0-9_-]{16,}$/, prefix: 'sk-or-v1-' },
  keyTest: {
    ...LIST_MODELS,
    // The model list is public, so the test reads the key's own data.
    path: '/key',
    isExpectedBody: (body) => isObject(findData(body)),
    findOutcome: findKeyOutcome,
  },
  models: ['openrouter/auto'],
});

function findData(body: unknown): unknown {
  return isObject(body) ? body['data'] : undefined;
}

/** Reads the key's own data (https://openrouter.ai/docs/api/api-reference/api-keys/get-current-key). */
function findKeyOutcome({ status, body }: KeyTestResponse): KeyTestOutcome | undefined {
  const data = findData(body);
  if (status !== 200 || !isObject(data)) return undefined;
  if (data['is_management_key'] === true || data['is_provisioning_key'] === true) {
    return {
      status: 'forbidden',
      message: 'This OpenRouter key manages other keys and cannot chat. Add a key for API calls.',
    };
  }
  const remaining = data['limit_remaining'];
  if (typeof remaining !== 'number' || remaining > 0) return undefined;
  return {
    status: 'no_credit',
    message:
      'OpenRouter accepts this key, but the key has used up its own limit. Raise the limit of the key, or wait for its reset.',
  };
}
