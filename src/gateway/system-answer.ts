import { AppError } from '../lib/errors.ts';
import type { Provider } from '../providers/provider.ts';
import { checkSharedPayerBody } from './body-rules.ts';
import { writeReceipt, type Receipt } from './headers.ts';
import type { GatewayDecision } from './routing.ts';
import type { SystemLimits } from './system-limits.ts';
import { systemAddress, type OperatorUpstreams } from '../providers/address.ts';
import type { Target, UpstreamCalls, Work } from './upstream-calls.ts';

/** The system default's credential and address. */
export interface SystemKey {
  apiKey: string;
  /** Undefined: its provider's address. */
  baseUrl: string | undefined;
  /** Request fields that the operator allows beyond the built-in list. */
  extraFields: readonly string[];
}

export interface SystemAnswerDeps {
  /** Null when the operator has set none up. */
  system: SystemKey | null;
  limits: SystemLimits;
  calls: UpstreamCalls;
  /** Throws for an id that is no provider's. */
  getProvider(id: string): Provider;
  upstreams: OperatorUpstreams;
}

/** Answers on the system's bill, within its limits and its body rules. */
export type AnswerFromSystem = (
  work: Work,
  decision: Extract<GatewayDecision, { kind: 'system' }>,
) => Promise<void>;

export function createSystemAnswer(deps: SystemAnswerDeps): AnswerFromSystem {
  return async (work, decision) => {
    if (deps.system === null) throw new Error('a system decision without a system default');
    const provider = deps.getProvider(decision.provider);
    const address = systemAddress(provider, deps.system.baseUrl, deps.upstreams);
    if (address === undefined)
      throw new AppError('no_default_provider', 'The system default has no address.');
    const { model, reason } = decision;
    const receipt: Receipt = {
      provider: provider.id,
      model,
      scope: 'system',
      keyId: null,
      attempts: 0,
      reason,
    };
    writeReceipt(work.response, receipt);
    checkSharedPayerBody(work.chat, deps.system.extraFields);
    const leave = await deps.limits.enter(work.principal.user.id, work.response);
    try {
      const target: Target = {
        provider,
        address,
        secret: deps.system.apiKey,
        receipt: { ...receipt, attempts: 1 },
      };
      await deps.calls.pass(work, target, await deps.calls.ask(work, target, true));
    } finally {
      leave();
    }
  };
}
