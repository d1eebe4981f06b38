import { openAiCompatible } from './provider.ts';

/** A router to other providers' models; its model ids have a vendor in front (`openai/gpt-4o`). */
export const openrouter = openAiCompatible({
  id: 'openrouter',
  name: 'OpenRouter',
  baseUrl: 'https://openrouter.ai/api/v1',
  docsUrl: 'https://openrouter.ai/settings/keys',
  // Today's keys start with `sk-or-v1-`; the version may change, the rest of the prefix names the service.
  key: { hint: 'sk-or-v1-...', pattern: /^sk-or-[A-Za-z0-9_-]{16,}$/, prefix: 'sk-or-' },
  models: ['openrouter/auto'],
});
