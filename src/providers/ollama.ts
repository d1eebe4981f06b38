import { openAiCompatible } from './provider.ts';

/**
 * Ollama on a machine of the user's or the operator's. Its list of models is what is installed there. It
 * ignores keys; what stands in front of it may want one.
 */
export const ollama = openAiCompatible({
  id: 'ollama',
  name: 'Ollama',
  baseUrl: null,
  docsUrl: null,
  key: { hint: null, pattern: /^[\x21-\x7e]*$/, prefix: '' },
  requiresEndpoint: true,
  requiresKey: false,
});
