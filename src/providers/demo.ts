import { openAiCompatible, SURFACE_PATHS } from './provider.ts';

/** The demo upstream of local mode, so that the product can be tried without a provider. */
export const demo = openAiCompatible({
  id: 'demo',
  name: 'Demo',
  reportsStreamUsage: true,
  baseUrl: null,
  docsUrl: null,
  surfaces: {
    embeddings: SURFACE_PATHS.embeddings,
    responses: SURFACE_PATHS.responses,
    messages: SURFACE_PATHS.messages,
  },
  key: { hint: 'demo-...', pattern: /^demo-[A-Za-z0-9_-]{11,}$/, prefix: 'demo-' },
  modelPatterns: [/^demo(-[-.\w]+)?$/],
  models: ['demo', 'demo-tools', 'demo-embeddings'],
  isLocalOnly: true,
});
