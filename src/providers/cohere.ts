import { completeOneToken, openAiCompatible, SURFACE_PATHS } from './provider.ts';

/** Cohere through its Compatibility API. */
export const cohere = openAiCompatible({
  id: 'cohere',
  name: 'Cohere',
  baseUrl: 'https://api.cohere.ai/compatibility/v1',
  docsUrl: 'https://dashboard.cohere.com/api-keys',
  surfaces: { embeddings: SURFACE_PATHS.embeddings },
  // Keys have 40 letters and digits today. Cohere does not document the format, so 36 to 48 are accepted.
  key: { hint: null, pattern: /^[A-Za-z0-9]{36,48}$/, prefix: '' },
  // Cohere's own key check is outside the base URL of chats. Its smallest model costs least.
  keyTest: completeOneToken('command-r7b-12-2024'),
  modelPatterns: [/^command-[-.\w]+$/, /^embed-(v\d|english|multilingual)[-.\w]*$/],
  models: ['command-a-03-2025', 'command-r-plus-08-2024', 'command-r-08-2024', 'command-r7b-12-2024'],
});
