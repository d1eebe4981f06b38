import type { Response } from 'express';
import { createConcurrencyLimit } from '../../http/limits.ts';
import { AppError } from '../../lib/errors.ts';
import { createRateLimit, type RateLimitState } from '../../lib/rate-limit.ts';
import type { Provider } from '../../providers/provider.ts';
import { waitForLargeWork } from '../../lib/async/large-work.ts';
import { admitSharedPayerBody } from '../admission/request-body.ts';
import { writeReceiptHeaders, type Receipt } from './response-headers.ts';
import type { GatewayDecision } from '../routing/routing.ts';
import { findSystemAddress, type OperatorUpstreams } from '../../providers/address.ts';
import type { UpstreamTarget, UpstreamCalls, GatewayCall } from './calls.ts';

/** The system default's credential and address. */
export interface SystemCredential {
  apiKey: string;
  /** Undefined means the provider's own address. */
  baseUrl: string | undefined;
  /** Request fields that the operator allows in addition to the built-in list. */
  extraFields: readonly string[];
}

export interface ServeFromSystemDeps {
  /** Null when the operator has configured none. */
  system: SystemCredential | null;
  calls: UpstreamCalls;
  /** Throws for an unknown provider id. */
  getProvider(id: string): Provider;
  upstreams: OperatorUpstreams;
}

/** Serves a request with the system's key, under the system's limits and the body rules of a shared payer. */
export type ServeFromSystem = (
  call: GatewayCall,
  decision: Extract<GatewayDecision, { kind: 'system' }>,
) => Promise<void>;

export function createServeFromSystem(deps: ServeFromSystemDeps): ServeFromSystem {
  const limits = createSystemLimits();
  return async (call, decision) => {
    if (deps.system === null) throw new Error('a system decision without a system default');
    const provider = deps.getProvider(decision.provider);
    const address = findSystemAddress(provider, deps.system.baseUrl, deps.upstreams);
    if (address === undefined)
      throw new AppError(
        'no_default_provider',
        'The system default has no address. Ask the operator to set DEFAULT_LLM_BASE_URL.',
        { headers: { 'x-should-retry': 'false' } },
      );
    const { model, reason } = decision;
    const receipt: Receipt = {
      provider: provider.id,
      model,
      scope: 'system',
      keyId: null,
      endpointSlug: null,
      attempts: 0,
      reason,
      upstreamRequestId: null,
    };
    writeReceiptHeaders(call.response, receipt);
    const release = await limits.acquire(call.principal.user.id, call.response);
    try {
      await waitForLargeWork(call.principal.user.id, call.body.byteLength(), call.signal);
      // A refused body counts as well.
      const admission = admitSharedPayerBody(call.body, call.surface, deps.system.extraFields);
      const { body, dropped } = admission;
      if (dropped.length > 0) call.response.setHeader('x-ops-dropped', dropped.join(', '));
      if (admission.isStoringRefused) call.response.setHeader('x-ops-store', 'false');
      const admitted = { ...call, body };
      const target: UpstreamTarget = {
        provider,
        address,
        secret: deps.system.apiKey,
        receipt: { ...receipt, attempts: 1 },
      };
      await deps.calls.respond(admitted, target, await deps.calls.send(admitted, target, true));
    } finally {
      release();
    }
  };
}

interface SystemLimits {
  /**
   * Acquires a slot for one request that the system pays for and writes the `RateLimit` headers.
   * @returns function that releases the slot.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds.
   */
  acquire(userId: string, response: Response): Promise<() => void>;
}

const MAX_CONCURRENT = 4;
const MAX_PER_MINUTE = 30;
const WINDOW_S = 60;

/** Limits for each user and process: 4 concurrent requests, 30 a minute. */
function createSystemLimits(): SystemLimits {
  const perMinute = createRateLimit({
    maxUses: MAX_PER_MINUTE,
    windowS: WINDOW_S,
    rejectionDetail: `The system pays for at most ${MAX_PER_MINUTE} requests a minute. Add your own key or try again later.`,
  });
  const concurrency = createConcurrencyLimit(
    MAX_CONCURRENT,
    `The system pays for at most ${MAX_CONCURRENT} requests at once. Add your own key or try again later.`,
  );
  return {
    async acquire(userId, response) {
      const release = concurrency.acquire(userId);
      try {
        const report = (state: RateLimitState) => {
          writeRateLimitHeaders(response, state);
        };
        report(await perMinute.consume(userId, report));
        return release;
      } catch (error) {
        release();
        throw error;
      }
    },
  };
}

/** draft-ietf-httpapi-ratelimit-headers: `q` quota, `w` window in seconds, `r` remaining, `t` seconds to the reset. */
function writeRateLimitHeaders(response: Response, { remaining, resetS }: RateLimitState): void {
  response.setHeader('ratelimit-policy', `"system";q=${MAX_PER_MINUTE};w=${WINDOW_S}`);
  response.setHeader('ratelimit', `"system";r=${remaining};t=${resetS}`);
}
