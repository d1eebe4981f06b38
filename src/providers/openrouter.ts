import { openAiCompatible } from './provider.ts';

export const openrouter = openAiCompatible({
  id: 'openrouter',
  name: 'OpenRouter',
  baseUrl: 'https://openrouter.ai/api/v1',
  docsUrl: 'https://openrouter.ai/settings/keys',
  key: { hint: 'sk-or-...', pattern: /^sk-or-[A-Za-z0-9_-]{16,}$/, prefix: 'sk-or-' },
  models: ['openrouter/auto'],
});
