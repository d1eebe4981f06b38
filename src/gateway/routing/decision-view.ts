import { toSkippedView } from './decision-error.ts';
import type { GatewayDecision } from './routing.ts';
import type { RoutePreview } from '../schema.ts';

/** The response of `GET /api/v1/byok/route`. */
export function toRoutePreview(decision: GatewayDecision): RoutePreview {
  const { provider, model } = decision;
  const key = decision.kind === 'pool' ? decision.keys[0] : undefined;
  return {
    provider,
    model,
    key_scope: decision.kind === 'pool' ? decision.scope : decision.kind === 'system' ? 'system' : null,
    key_id: key?.id ?? null,
    label: key?.label ?? null,
    reason: decision.kind === 'refused' ? decision.code : decision.kind === 'system' ? decision.reason : null,
    skipped: toSkippedView(decision),
  };
}
