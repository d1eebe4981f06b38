import type { Principal } from '../../http/principal.ts';
import { requireTier } from '../../http/route.ts';
import type { UserCache } from '../../identity/service.ts';
import { AppError, unauthenticated } from '../../lib/errors.ts';
import type { Provider } from '../../providers/provider.ts';
import { BYOK_TIER } from '../../config/tiers.ts';
import type { ClassifiedResponse } from './response.ts';
import { checkPersonalKeyBody } from '../admission/body-rules.ts';
import type { Receipt } from './headers.ts';
import type { KeyStatusWriter } from '../routing/key-status-writer.ts';
import type { GatewayDecision, GatewayKey, Routing } from '../routing/routing.ts';
import { findKeyAddress, type OperatorUpstreams } from '../../providers/address.ts';
import type { UpstreamTarget, UpstreamCalls, GatewayCall } from './calls.ts';

type PoolDecision = Extract<GatewayDecision, { kind: 'pool' }>;

export interface ServeFromPoolDeps {
  routing: Routing;
  keyStatus: KeyStatusWriter;
  directory: UserCache;
  calls: UpstreamCalls;
  /** Throws for an id that is no provider's. */
  getProvider(id: string): Provider;
  upstreams: OperatorUpstreams;
}

/**
 * Answers on the keys of a pool. Only a 401 moves on to the next key; when all say so, the first 401 is the
 * answer. Every other answer is the answer.
 */
export type ServeFromPool = (work: GatewayCall, decision: PoolDecision) => Promise<void>;

export function createServeFromPool(deps: ServeFromPoolDeps): ServeFromPool {
  return async (call, decision) => {
    const provider = deps.getProvider(decision.provider);
    deps.routing.advanceRotation(call.principal.user, decision);
    let firstUnauthorized: { answer: ClassifiedResponse; target: UpstreamTarget } | undefined;
    let attempts = 0;
    for (const decidedKey of decision.keys) {
      const key = attempts === 0 ? decidedKey : await reauthorizeKey(deps, call.principal, decidedKey);
      if (key === undefined) continue;
      attempts += 1;
      const target = createPoolTarget(provider, key, decision, attempts, deps.upstreams);
      checkPersonalKeyBody(call.chat, target.address.isOperatorSupplied);
      const answer = await deps.calls.send(call, target, decidedKey === decision.keys.at(-1));
      if (answer.kind !== 'error' || answer.status !== 401) {
        if (answer.kind !== 'error') deps.keyStatus.writeUse(call, key);
        return deps.calls.respond(call, target, answer);
      }
      await deps.keyStatus.writeRefusal(call, key);
      firstUnauthorized ??= { answer, target };
    }
    if (firstUnauthorized === undefined) throw new Error('a pool decision without keys');
    firstUnauthorized.target.receipt.attempts = attempts;
    call.response.setHeader('x-should-retry', 'false');
    return deps.calls.respond(call, firstUnauthorized.target, firstUnauthorized.answer);
  };
}

function createPoolTarget(
  provider: Provider,
  key: GatewayKey,
  decision: PoolDecision,
  attempts: number,
  upstreams: OperatorUpstreams,
): UpstreamTarget {
  const decrypted = key.decrypt();
  const address = decrypted && findKeyAddress(provider, decrypted.endpoint, upstreams);
  if (decrypted === undefined || address === undefined) {
    throw new AppError('key_undecryptable', 'The stored key cannot be used any more. Add it again.');
  }
  const { model, scope } = decision;
  const receipt: Receipt = { provider: provider.id, model, scope, keyId: key.id, attempts, reason: null };
  return { provider, address, secret: decrypted.secret === '' ? null : decrypted.secret, receipt };
}

/**
 * Every attempt is authorized anew: since the first, the user may have been disabled or downgraded, and the
 * key deleted, replaced or set aside.
 * @returns the key as it is now; undefined when it is to be passed over.
 */
async function reauthorizeKey(
  { directory, routing }: ServeFromPoolDeps,
  principal: Principal,
  key: GatewayKey,
): Promise<GatewayKey | undefined> {
  const user = await directory.findUser(principal.user.id);
  if (user === undefined) throw unauthenticated();
  requireTier({ ...principal, user }, BYOK_TIER);
  return routing.findUsableKey(user, key);
}
