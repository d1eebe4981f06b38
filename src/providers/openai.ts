import { openAiCompatible } from './provider.ts';

export const openai = openAiCompatible({
  id: 'openai',
  name: 'OpenAI',
  baseUrl: 'https://api.openai.com/v1',
  docsUrl: 'https://platform.openai.com/api-keys',
  key: { hint: 'sk-...', pattern: /^sk-(?!ant-|or-)[A-Za-z0-9_-]{16,}$/, prefix: 'sk-' },
  modelPatterns: [/^(gpt|chatgpt|o\d)[-.\w:]*$/],
  models: ['gpt-5.1', 'gpt-5-mini', 'gpt-4.1', 'gpt-4o', 'gpt-4o-mini'],
});
