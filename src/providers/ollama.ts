import { openAiCompatible, SURFACE_PATHS } from './provider.ts';

/**
 * Ollama on a machine of the user or the operator. It lists the models that are installed there. Ollama ignores
 * keys; a proxy in front of it may require one.
 */
export const ollama = openAiCompatible({
  id: 'ollama',
  name: 'Ollama',
  reportsStreamUsage: true,
  baseUrl: null,
  docsUrl: null,
  surfaces: { embeddings: SURFACE_PATHS.embeddings },
  key: { hint: null, pattern: /^[\x21-\x7e]*$/, prefix: '' },
  requiresEndpoint: true,
  requiresKey: false,
});
