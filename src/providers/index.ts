import { anthropic } from './anthropic.ts';
import { cohere } from './cohere.ts';
import { custom } from './custom.ts';
import { demo } from './demo.ts';
import { groq } from './groq.ts';
import { huggingface } from './huggingface.ts';
import { ollama } from './ollama.ts';
import { openai } from './openai.ts';
import { openrouter } from './openrouter.ts';
import { perplexity } from './perplexity.ts';
import type { Provider } from './provider.ts';
import { together } from './together.ts';

/** All providers, in the order in which they are shown. */
export const PROVIDERS: readonly Provider[] = [
  openai,
  anthropic,
  huggingface,
  cohere,
  together,
  perplexity,
  groq,
  openrouter,
  ollama,
  custom,
  demo,
];

export const PROVIDER_IDS = PROVIDERS.map((provider) => provider.id);
