import { isModelArray, LIST_MODELS, openAiCompatible, SURFACE_PATHS } from './provider.ts';

/** Open models, named as on the Hugging Face Hub (`meta-llama/...`). */
export const together = openAiCompatible({
  id: 'together',
  name: 'Together AI',
  reportsStreamUsage: true,
  baseUrl: 'https://api.together.xyz/v1',
  docsUrl: 'https://api.together.ai/settings/projects/~current/api-keys',
  surfaces: { embeddings: SURFACE_PATHS.embeddings },
  // Older keys have 64 hexadecimal digits.
  key: { hint: 'tgp_v1_...', pattern: /^(tgp_v1_[A-Za-z0-9_-]{16,}|[0-9a-f]{64})$/, prefix: 'tgp_v1_' },
  // The list is a bare array (https://docs.together.ai/reference/models).
  keyTest: { ...LIST_MODELS, isExpectedBody: isModelArray },
  models: [
    'openai/gpt-oss-120b',
    'deepseek-ai/DeepSeek-V4-Pro',
    'meta-llama/Llama-3.3-70B-Instruct-Turbo',
    'moonshotai/Kimi-K2-Instruct',
    'Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8',
  ],
});
