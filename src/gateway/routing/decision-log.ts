import type { User } from '../../http/principal.ts';
import type { Log } from '../../lib/log.ts';
import type { GatewayDecision } from './routing.ts';

/** Logs the event `request_routing` and, when the system pays, `system_fallback`. */
export function logDecision(log: Log, user: User, decision: GatewayDecision): void {
  const scope = decision.kind === 'pool' ? decision.scope : decision.kind === 'system' ? 'system' : null;
  const reason =
    decision.kind === 'system' ? decision.reason : decision.kind === 'refused' ? decision.code : null;
  const { provider, model } = decision;
  log.info(
    {
      event: 'request_routing',
      user: user.id,
      provider,
      model,
      byok: decision.kind === 'pool',
      key_scope: scope,
      reason,
    },
    'request routing',
  );
  if (decision.kind === 'system')
    log.info({ event: 'system_fallback', reason }, 'served by the system default');
}
