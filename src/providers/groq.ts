import { openAiCompatible, SURFACE_PATHS } from './provider.ts';

export const groq = openAiCompatible({
  id: 'groq',
  name: 'Groq',
  reportsStreamUsage: true,
  baseUrl: 'https://api.groq.com/openai/v1',
  docsUrl: 'https://console.groq.com/keys',
  // https://console.groq.com/docs/openai#responses-api
  surfaces: { responses: SURFACE_PATHS.responses },
  key: { hint: 'gsk_...', pattern: /^gsk_[A-Za-z0-9]{16,}$/, prefix: 'gsk_' },
  // The two suffixes are Groq's own: they name how it serves a model.
  modelPatterns: [/^llama-3\.[13]-\d+b-(versatile|instant)$/],
  // Groq's own systems have names that begin like its id: a request for `groq/compound` keeps the whole name.
  models: [
    'groq/compound',
    'groq/compound-mini',
    'openai/gpt-oss-120b',
    'openai/gpt-oss-20b',
    'llama-3.3-70b-versatile',
    'llama-3.1-8b-instant',
  ],
});
