import { openAiCompatible, SURFACE_PATHS } from './provider.ts';

/** Any OpenAI-compatible endpoint; the user enters its address with the key. */
export const custom = openAiCompatible({
  id: 'custom',
  name: 'Custom endpoint',
  baseUrl: null,
  docsUrl: null,
  surfaces: { embeddings: SURFACE_PATHS.embeddings },
  key: { hint: null, pattern: /^[\x21-\x7e]*$/, prefix: '' },
  requiresEndpoint: true,
  requiresKey: false,
});
