import type { calcPrice, ModelPrice, Usage } from '@pydantic/genai-prices';
import type { TokenUsage } from './record.ts';

/** Prices of providers, from a package whose data is part of it: nothing is fetched. */
export interface Prices {
  /** The cost in US dollars as a decimal number; null when the model or its tokens are not known. */
  findCost(provider: string, model: string, usage: TokenUsage): string | null;
}

type CalculatePrice = typeof calcPrice;

/** Some prices differ by the time of the day. */
const RATES_LIFETIME_MS = 60_000;
/** Users choose names of models. */
const MAX_REMEMBERED = 1_000;
const MAX_DIGITS = 12;
const TOKENS_PER_PRICE = 1_000_000;

/** Prices of the provider's own list do not apply to a server of a user. */
const UNPRICED_PROVIDERS: ReadonlySet<string> = new Set(['custom', 'ollama', 'demo', 'huggingface']);

/** Loading the package takes a tenth of a second and 20 MB, so it is loaded at the start of the app alone. */
export async function loadPrices(): Promise<Prices> {
  const { calcPrice: calculate } = await import('@pydantic/genai-prices');
  return createPrices(calculate);
}

interface Rates {
  /** Null for a model without prices. */
  price: ModelPrice | null;
  validUntilMs: number;
}

/**
 * A calculation by the package takes 70 µs. It returns the rates, which are remembered, so that usual requests take a
 * few multiplications. A model with tiers or other rates is calculated by the package each time.
 */
export function createPrices(calculate: CalculatePrice, now: () => number = () => Date.now()): Prices {
  const remembered = new Map<string, Rates>();

  function findRates(provider: string, model: string): ModelPrice | null {
    const name = `${provider} ${model}`;
    const known = remembered.get(name);
    if (known !== undefined && known.validUntilMs > now()) return known.price;
    const price = calculate({ input_tokens: 0, output_tokens: 0 }, model, {
      providerId: provider,
    })?.model_price;
    if (remembered.size >= MAX_REMEMBERED) remembered.clear();
    remembered.set(name, { price: price ?? null, validUntilMs: now() + RATES_LIFETIME_MS });
    return price ?? null;
  }

  function findUsd(provider: string, model: string, usage: PricedUsage): number | undefined {
    const price = findRates(provider, model);
    if (price === null) return undefined;
    const simple = toSimpleRates(price);
    if (simple !== undefined) return multiply(simple, usage);
    return calculate(usage, model, { providerId: provider })?.total_price;
  }

  return {
    findCost(provider, model, usage) {
      const priced = toPricedUsage(usage);
      if (priced === undefined || UNPRICED_PROVIDERS.has(provider)) return null;
      return findUsd(provider, model, priced)?.toFixed(MAX_DIGITS) ?? null;
    },
  };
}

interface PricedUsage extends Usage {
  input_tokens: number;
  output_tokens: number;
  cache_read_tokens: number;
  cache_write_tokens: number;
}

/** @returns undefined where a number is missing, or where the parts are more than the whole. */
function toPricedUsage(usage: TokenUsage): PricedUsage | undefined {
  const { inputTokens, outputTokens, cachedTokens, cacheWriteTokens } = usage;
  if (inputTokens === null || outputTokens === null) return undefined;
  const [read, written] = [cachedTokens ?? 0, cacheWriteTokens ?? 0];
  if (read + written > inputTokens) return undefined;
  return {
    input_tokens: inputTokens,
    output_tokens: outputTokens,
    cache_read_tokens: read,
    cache_write_tokens: written,
  };
}

/** US dollars for a million tokens. */
interface SimpleRates {
  input: number;
  cacheRead: number;
  cacheWrite: number;
  output: number;
}

/** Rates by units that the ledger does not count, but which change the price of tokens or of each request. */
const OTHER_RATES =
  /^(output_reasoning_mtok|output_citation_mtok|requests_kcount|input_text_messages_kcount)$/;

/** @returns undefined when a rate has tiers, is missing, or when other rates count. */
function toSimpleRates(price: ModelPrice): SimpleRates | undefined {
  if (Object.keys(price).some((name) => OTHER_RATES.test(name))) return undefined;
  const { input_mtok: input, output_mtok: output = 0 } = price;
  const { cache_read_mtok: cacheRead = input, cache_write_mtok: cacheWrite = input } = price;
  const rates = { input, cacheRead, cacheWrite, output };
  return Object.values(rates).every((rate) => typeof rate === 'number') ? (rates as SimpleRates) : undefined;
}

function multiply(rates: SimpleRates, usage: PricedUsage): number {
  const { input_tokens: input, cache_read_tokens: read, cache_write_tokens: written } = usage;
  const usd =
    (input - read - written) * rates.input +
    read * rates.cacheRead +
    written * rates.cacheWrite +
    usage.output_tokens * rates.output;
  return usd / TOKENS_PER_PRICE;
}
