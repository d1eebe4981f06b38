import {
  isObject,
  LIST_MODELS,
  openAiCompatible,
  type KeyTestResponse,
  type KeyTestOutcome,
} from './provider.ts';

/** A router to other providers' models; its model ids have a vendor in front (`openai/gpt-4o`). */
export const openrouter = openAiCompatible({
  id: 'openrouter',
  name: 'OpenRouter',
  baseUrl: 'https://openrouter.ai/api/v1',
  docsUrl: 'https://openrouter.ai/settings/keys',
  // Today's keys start with `sk-or-v1-`; the version may change, the rest of the prefix names the service.
  key: { hint: 'sk-or-v1-...', pattern: /^sk-or-[A-Za-z0-9_-]{16,}$/, prefix: 'sk-or-' },
  keyTest: {
    ...LIST_MODELS,
    // The list of models is public: it answers any key.
    path: '/key',
    isExpectedBody: (body) => isObject(findData(body)),
    findOutcome: findKeyOutcome,
  },
  models: ['openrouter/auto'],
});

function findData(body: unknown): unknown {
  return isObject(body) ? body['data'] : undefined;
}

/** What the key says of itself (https://openrouter.ai/docs/api/api-reference/api-keys/get-current-key). */
function findKeyOutcome({ status, body }: KeyTestResponse): KeyTestOutcome | undefined {
  const data = findData(body);
  if (status !== 200 || !isObject(data)) return undefined;
  if (data['is_management_key'] === true || data['is_provisioning_key'] === true) {
    return {
      status: 'forbidden',
      message:
        'This key of OpenRouter manages other keys and cannot chat. Add one that was made for API calls.',
    };
  }
  const remaining = data['limit_remaining'];
  if (typeof remaining !== 'number' || remaining > 0) return undefined;
  return {
    status: 'no_credit',
    message:
      'OpenRouter accepts this key, but its own limit is used up. Raise the limit of the key, or wait for its reset.',
  };
}
