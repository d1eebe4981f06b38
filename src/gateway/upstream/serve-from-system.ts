import { AppError } from '../../lib/errors.ts';
import type { Provider } from '../../providers/provider.ts';
import { checkSharedPayerBody } from '../admission/request-body.ts';
import { writeReceiptHeaders, type Receipt } from './headers.ts';
import type { GatewayDecision } from '../routing/routing.ts';
import type { SystemLimits } from '../admission/system-limits.ts';
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
  limits: SystemLimits;
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
  return async (call, decision) => {
    if (deps.system === null) throw new Error('a system decision without a system default');
    const provider = deps.getProvider(decision.provider);
    const address = findSystemAddress(provider, deps.system.baseUrl, deps.upstreams);
    if (address === undefined)
      throw new AppError(
        'no_default_provider',
        'The system default has no address. Ask the operator to set DEFAULT_LLM_BASE_URL.',
      );
    const { model, reason } = decision;
    const receipt: Receipt = {
      provider: provider.id,
      model,
      scope: 'system',
      keyId: null,
      attempts: 0,
      reason,
    };
    writeReceiptHeaders(call.response, receipt);
    checkSharedPayerBody(call.body, call.surface, deps.system.extraFields);
    const release = await deps.limits.acquire(call.principal.user.id, call.response);
    try {
      const target: UpstreamTarget = {
        provider,
        address,
        secret: deps.system.apiKey,
        receipt: { ...receipt, attempts: 1 },
      };
      await deps.calls.respond(call, target, await deps.calls.send(call, target, true));
    } finally {
      release();
    }
  };
}
