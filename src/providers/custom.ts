import { openAiCompatible } from './provider.ts';

/** Any endpoint that speaks OpenAI's protocol; the user brings its address with the key. */
export const custom = openAiCompatible({
  id: 'custom',
  name: 'Custom endpoint',
  baseUrl: null,
  docsUrl: null,
  key: { hint: null, pattern: /^[\x21-\x7e]*$/, prefix: '' },
  requiresEndpoint: true,
  requiresKey: false,
});
