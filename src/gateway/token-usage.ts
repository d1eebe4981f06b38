import { findHiddenCharacter } from '../lib/visible-text.ts';
import { isObject } from '../providers/provider.ts';
import type { TokenUsage } from '../usage/service.ts';

/* What the readers of usage in `surfaces/` share. Providers send any JSON, which is stored and shown. */

/** Of an answer that reports nothing. */
export const NO_USAGE: TokenUsage = {
  inputTokens: null,
  cachedTokens: null,
  cacheWriteTokens: null,
  outputTokens: null,
  reasoningTokens: null,
  servedModel: null,
  costUsd: null,
};

const MAX_MODEL_LENGTH = 256;
/** xAI states costs in ticks (https://docs.x.ai/developers/cost-tracking). */
const TICKS_PER_USD = 1e10;
/** A statement above it is a mistake. */
const MAX_COST_USD = 1_000_000;
const COST_DIGITS = 12;

/** A number of tokens; null for any other value. */
export function toTokenCount(value: unknown): number | null {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : null;
}

/** The number of tokens of a member, such as `cached_tokens` in `prompt_tokens_details`; null when there is none. */
export function readTokenCount(details: unknown, name: string): number | null {
  return isObject(details) ? toTokenCount(details[name]) : null;
}

/** The name of a model that may be stored and shown; null for any other value. */
export function toServedModel(value: unknown): string | null {
  if (typeof value !== 'string' || value === '' || value.length > MAX_MODEL_LENGTH) return null;
  return findHiddenCharacter(value) === undefined ? value : null;
}

/**
 * The cost that a provider states in `usage`, in US dollars: OpenRouter's `cost`, with the bill of the model's own
 * provider where the account at OpenRouter brings the key for it, and xAI's `cost_in_usd_ticks`. Null when it states none.
 */
export function readStatedCost(usage: Readonly<Record<string, unknown>>): string | null {
  const { cost, cost_in_usd_ticks: ticks, is_byok: isOwnKey, cost_details: details } = usage;
  if (isAmount(ticks)) return toDecimal(ticks / TICKS_PER_USD);
  if (!isAmount(cost)) return null;
  const upstream = isObject(details) ? details['upstream_inference_cost'] : undefined;
  return toDecimal(cost + (isOwnKey === true && isAmount(upstream) ? upstream : 0));
}

function isAmount(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && Number.isFinite(value);
}

function toDecimal(usd: number): string | null {
  return usd > MAX_COST_USD ? null : usd.toFixed(COST_DIGITS);
}
