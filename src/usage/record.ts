import type { ErrorCode } from '../lib/errors.ts';
import type { Owner } from '../lib/owner.ts';

/** Tokens and cost of one answer, as the provider reports them. Null where it does not. */
export interface TokenUsage {
  /** All tokens of the input, with those that were read from a cache and written to one. */
  inputTokens: number | null;
  /** Of the input, read from a cache of the provider. */
  cachedTokens: number | null;
  /** Of the input, written to a cache of the provider. */
  cacheWriteTokens: number | null;
  /** All tokens of the output, with those of reasoning. */
  outputTokens: number | null;
  reasoningTokens: number | null;
  /** The model that the provider names in its answer. */
  servedModel: string | null;
  /** US dollars that the provider states itself, as a decimal number. */
  costUsd: string | null;
}

export type KeyScope = 'personal' | 'organization' | 'system';

/**
 * How an answer ended. `done`: whole. `incomplete`: the upstream ended a stream too early. `cancelled`: the client
 * disconnected, the sign-in ended or the process stopped before. `failed`: any error, of the upstream or of this server.
 */
export type AnswerEnd = 'done' | 'incomplete' | 'cancelled' | 'failed';

/** One call to an upstream. */
export interface AttemptRecord {
  /** Null for the system's key. */
  keyId: string | null;
  keyScope: KeyScope;
  provider: string;
  endpointSlug: string | null;
  model: string;
  /** HTTP status of the upstream; null when it sent none. */
  status: number | null;
  /** Why there is no whole answer; null when there is one, or when the status says it. */
  fault: ErrorCode | 'cancelled' | 'stream_failed' | null;
  startedAt: Date;
  durationMs: number;
}

/** One request for which an upstream was called. */
export interface AnsweredRequest {
  requestId: string;
  owner: Owner;
  /** Null unless a personal token authenticated the request. */
  tokenId: string | null;
  surface: string;
  /** As the client named it; null when it named none. */
  requestedModel: string | null;
  end: AnswerEnd;
  startedAt: Date;
  /** From the request to the end of the answer. */
  latencyMs: number;
  /** From the request to the first event with text, reasoning or tool data; null without a stream. */
  firstTokenMs: number | null;
  usage: TokenUsage;
  /** At least one, in the order of the calls. The last one names provider, model and payer of the answer. */
  attempts: readonly AttemptRecord[];
}

/** A request that was refused before any upstream was called. */
export interface RefusedRequest {
  owner: Owner;
  code: ErrorCode;
}

/** Records requests for the ledger. Nothing is awaited on the path of a request. */
export interface UsageRecorder {
  record(request: AnsweredRequest): void;
  recordRefusal(refusal: RefusedRequest): void;
}
