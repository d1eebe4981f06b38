import type { GatewayDecision } from './routing.ts';

/** Describes a decision in one sentence for display. */
export function explainDecision(decision: GatewayDecision): string {
  if (decision.kind === 'pool') {
    const label = decision.keys[0]?.label;
    return `Your ${decision.provider} key${label ? ` “${label}”` : ''} would answer the next chat request.`;
  }
  if (decision.kind === 'system') {
    const reason =
      decision.reason === 'tier_required'
        ? 'your tier does not include keys of your own'
        : 'you have no key for it yet';
    return `The system default (${decision.provider}) would answer the next chat request: ${reason}.`;
  }
  if (decision.code === 'model_missing')
    return 'This server has no default model: a chat request must name one.';
  return 'Nothing would answer a chat request now: add a key.';
}
