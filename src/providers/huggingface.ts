import { completeOneToken, openAiCompatible, SURFACE_PATHS } from './provider.ts';

/** A router to models that others host. Its model ids are those of the Hub (`openai/gpt-oss-120b`). */
export const huggingface = openAiCompatible({
  id: 'huggingface',
  name: 'Hugging Face',
  reportsStreamUsage: true,
  baseUrl: 'https://router.huggingface.co/v1',
  docsUrl: 'https://huggingface.co/settings/tokens',
  // https://huggingface.co/docs/inference-providers/guides/responses-api
  surfaces: { responses: SURFACE_PATHS.responses },
  // User tokens are letters and digits; OAuth tokens (`hf_oauth_...`) contain a JWT.
  key: { hint: 'hf_...', pattern: /^hf_[A-Za-z0-9._-]{16,}$/, prefix: 'hf_' },
  keyTest: {
    // The model list is public, and only a call shows whether a token may call providers.
    ...completeOneToken('openai/gpt-oss-120b'),
    findOutcome: ({ status }) =>
      status === 403
        ? {
            status: 'forbidden',
            message:
              'Hugging Face accepts this token, but the token may not call models. Give it the permission "Make calls to Inference Providers", then test again.',
          }
        : undefined,
  },
  models: [
    'openai/gpt-oss-120b',
    'openai/gpt-oss-20b',
    'Qwen/Qwen3-Coder-480B-A35B-Instruct',
    'deepseek-ai/DeepSeek-R1-0528',
    'zai-org/GLM-4.6',
  ],
});
