import { openAiCompatible } from './provider.ts';

export const openai = openAiCompatible({
  id: 'openai',
  name: 'OpenAI',
  baseUrl: 'https://api.openai.com/v1',
  docsUrl: 'https://platform.openai.com/api-keys',
  key: {
    hint: 'sk-...',
    // User keys `sk-`, project keys `sk-proj-`, service accounts `sk-svcacct-`. The two exceptions are the
    // prefixes of Anthropic and OpenRouter, so that a key pasted into the wrong field is noticed.
    pattern: /^sk-(?!ant-|or-)[A-Za-z0-9_-]{16,}$/,
    prefix: 'sk-',
  },
  modelPatterns: [
    // `gpt-oss-*` are open weights that others host and OpenAI's API does not.
    /^(ft:)?(gpt-(?!oss)|chatgpt-|codex-|computer-use-|text-embedding-)[-.:\w]+$/,
    /^(ft:)?o[1-9](-[-.:\w]+)?$/,
  ],
  models: ['gpt-6-sol', 'gpt-6-luna', 'gpt-5.4-mini', 'gpt-5.1', 'gpt-4.1', 'gpt-4o', 'gpt-4o-mini'],
});
