import { custom } from './custom.ts';
import { demo } from './demo.ts';
import { openai } from './openai.ts';
import { openrouter } from './openrouter.ts';
import type { Provider } from './provider.ts';

/** Every provider, in the order in which people see them. */
export const PROVIDERS: readonly Provider[] = [openai, openrouter, custom, demo];

export const PROVIDER_IDS = PROVIDERS.map((provider) => provider.id);
