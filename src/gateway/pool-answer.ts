import type { Principal } from '../http/principal.ts';
import { requireTier } from '../http/routes.ts';
import type { Directory } from '../identity/service.ts';
import { AppError, unauthenticated } from '../lib/errors.ts';
import type { Provider } from '../providers/provider.ts';
import { BYOK_TIER } from '../tiers.ts';
import type { JudgedAnswer } from './answer.ts';
import { checkOwnKeyBody } from './body-rules.ts';
import type { Receipt } from './headers.ts';
import type { KeyNotes } from './key-notes.ts';
import type { GatewayDecision, GatewayKey, Routing } from './routing.ts';
import { keyAddress, type OperatorUpstreams } from '../providers/address.ts';
import type { Target, UpstreamCalls, Work } from './upstream-calls.ts';

type PoolDecision = Extract<GatewayDecision, { kind: 'pool' }>;

export interface PoolAnswerDeps {
  routing: Routing;
  notes: KeyNotes;
  directory: Directory;
  calls: UpstreamCalls;
  /** Throws for an id that is no provider's. */
  getProvider(id: string): Provider;
  upstreams: OperatorUpstreams;
}

/**
 * Answers on the keys of a pool. Only a 401 moves on to the next key; when all say so, the first 401 is the
 * answer. Every other answer is the answer.
 */
export type AnswerFromPool = (work: Work, decision: PoolDecision) => Promise<void>;

export function createPoolAnswer(deps: PoolAnswerDeps): AnswerFromPool {
  return async (work, decision) => {
    const provider = deps.getProvider(decision.provider);
    deps.routing.takeTurn(work.principal.user, decision);
    let firstRefusal: { answer: JudgedAnswer; target: Target } | undefined;
    let attempts = 0;
    for (const chosen of decision.keys) {
      const key = attempts === 0 ? chosen : await admitAgain(deps, work.principal, chosen);
      if (key === undefined) continue;
      attempts += 1;
      const target = keyTarget(provider, key, decision, attempts, deps.upstreams);
      checkOwnKeyBody(work.chat, target.address.isOperators);
      const answer = await deps.calls.ask(work, target, chosen === decision.keys.at(-1));
      if (answer.kind !== 'error' || answer.status !== 401) {
        if (answer.kind !== 'error') deps.notes.used(work, key);
        return deps.calls.pass(work, target, answer);
      }
      await deps.notes.refused(work, key);
      firstRefusal ??= { answer, target };
    }
    if (firstRefusal === undefined) throw new Error('a pool decision without keys');
    firstRefusal.target.receipt.attempts = attempts;
    work.response.setHeader('x-should-retry', 'false');
    return deps.calls.pass(work, firstRefusal.target, firstRefusal.answer);
  };
}

function keyTarget(
  provider: Provider,
  key: GatewayKey,
  decision: PoolDecision,
  attempts: number,
  upstreams: OperatorUpstreams,
): Target {
  const opened = key.open();
  const address = opened && keyAddress(provider, opened.endpoint, upstreams);
  if (opened === undefined || address === undefined) {
    throw new AppError('key_undecryptable', 'The stored key cannot be used any more. Add it again.');
  }
  const { model, scope } = decision;
  const receipt: Receipt = { provider: provider.id, model, scope, keyId: key.id, attempts, reason: null };
  return { provider, address, secret: opened.secret === '' ? null : opened.secret, receipt };
}

/**
 * Every attempt is authorized anew: since the first, the user may have been disabled or downgraded, and the
 * key deleted, replaced or set aside.
 * @returns the key as it is now; undefined when it is to be passed over.
 */
async function admitAgain(
  { directory, routing }: PoolAnswerDeps,
  principal: Principal,
  key: GatewayKey,
): Promise<GatewayKey | undefined> {
  const user = await directory.findUser(principal.user.id);
  if (user === undefined) throw unauthenticated();
  requireTier({ ...principal, user }, BYOK_TIER);
  return routing.findUsable(user, key);
}
