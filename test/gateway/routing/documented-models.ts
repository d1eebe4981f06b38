interface DocumentedModels {
  source: string;
  /** The date on which the source was read. */
  readOn: string;
  models: readonly string[];
}

/** Models as the providers' documentation names them, the ids of `GET /models` of that provider. */
export const DOCUMENTED_MODELS: Readonly<Record<string, DocumentedModels>> = {
  openai: {
    source: 'https://platform.openai.com/docs/models',
    readOn: '2026-11-30',
    models: [
      'gpt-4o',
      'gpt-4o-mini',
      'gpt-4.1',
      'gpt-5.1',
      'o3',
      'o4-mini',
      'chatgpt-4o-latest',
      'text-embedding-3-small',
    ],
  },
  anthropic: {
    source: 'https://platform.claude.com/docs/en/about-claude/models/overview',
    readOn: '2026-11-30',
    models: [
      'claude-opus-4-5-20251101',
      'claude-sonnet-4-5-20250929',
      'claude-haiku-4-5',
      'claude-3-5-haiku-20241022',
    ],
  },
  groq: {
    source: 'https://console.groq.com/docs/models',
    readOn: '2026-11-30',
    models: [
      ...['llama-3.1-8b-instant', 'llama-3.3-70b-versatile', 'openai/gpt-oss-120b', 'openai/gpt-oss-20b'],
      ...[
        'groq/compound',
        'groq/compound-mini',
        'meta-llama/llama-4-scout-17b-16e-instruct',
        'qwen/qwen3-32b',
      ],
      ...['moonshotai/kimi-k2-instruct', 'whisper-large-v3'],
    ],
  },
  together: {
    source: 'https://docs.together.ai/docs/serverless-models',
    readOn: '2026-11-30',
    models: [
      ...['openai/gpt-oss-120b', 'meta-llama/Llama-3.3-70B-Instruct-Turbo', 'Qwen/Qwen3.5-9B'],
      ...['deepseek-ai/DeepSeek-R1', 'meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8'],
    ],
  },
  openrouter: {
    source: 'https://openrouter.ai/api/v1/models',
    readOn: '2026-11-30',
    models: [
      ...['openrouter/auto', 'openai/gpt-4o', 'openai/gpt-oss-120b', 'anthropic/claude-sonnet-4.5'],
      ...['~anthropic/claude-sonnet-latest', 'deepseek/deepseek-v3.2', 'perplexity/sonar'],
    ],
  },
  huggingface: {
    source: 'https://router.huggingface.co/v1/models',
    readOn: '2026-11-30',
    models: [
      'openai/gpt-oss-120b',
      'deepseek-ai/DeepSeek-R1',
      'Qwen/Qwen3-8B',
      'meta-llama/Llama-3.3-70B-Instruct',
    ],
  },
  perplexity: {
    source: 'https://docs.perplexity.ai/docs/agent-api/models',
    readOn: '2026-11-30',
    models: ['perplexity/sonar', 'anthropic/claude-sonnet-4-5', 'openai/gpt-5.1', 'pplx-embed-v1-0.6b'],
  },
  cohere: {
    source: 'https://docs.cohere.com/docs/models',
    readOn: '2026-11-30',
    models: [
      ...['command-a-03-2025', 'command-r-plus-08-2024', 'command-r-08-2024', 'command-r7b-12-2024'],
      ...['embed-v4.0', 'embed-english-v3.0', 'embed-multilingual-light-v3.0'],
    ],
  },
};
