import type { Response } from 'express';
import type { User } from '../../http/principal.ts';
import { AppError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Provider } from '../../providers/provider.ts';
import type { RoutePreview } from '../schema.ts';
import type { Surface } from '../surface.ts';
import type { GatewayDecision } from './routing.ts';

/** The members of a decision that the log and the preview show alike. */
function toDecisionView(
  decision: GatewayDecision,
): Pick<RoutePreview, 'provider' | 'model' | 'key_scope' | 'reason'> {
  const { provider, model } = decision;
  switch (decision.kind) {
    case 'pool':
      return { provider, model, key_scope: decision.pool.scope, reason: null };
    case 'system':
      return { provider, model, key_scope: 'system', reason: decision.reason };
    case 'refused':
      return { provider, model, key_scope: null, reason: decision.code };
  }
}

/** The skipped keys as they are sent. */
function toSkippedView(decision: GatewayDecision): RoutePreview['skipped'] {
  if (!('skipped' in decision)) return [];
  return decision.skipped.map(({ keyId, reason }) => ({ key_id: keyId, reason }));
}

/** Logs the event `request_routing` and, when the system pays, `system_fallback`. */
export function logDecision(log: Log, user: User, decision: GatewayDecision): void {
  const { provider, model, key_scope, reason } = toDecisionView(decision);
  const byok = decision.kind === 'pool';
  log.info(
    { event: 'request_routing', user: user.id, provider, model, byok, key_scope, reason },
    'request routing',
  );
  if (decision.kind === 'system')
    log.info({ event: 'system_fallback', reason }, 'served by the system default');
}

/**
 * The response of `GET /api/v1/byok/route`.
 * @param listsRead false when the decision depends on model lists that were never read.
 */
export function toRoutePreview(decision: GatewayDecision, listsRead: boolean): RoutePreview {
  const key = decision.kind === 'pool' ? decision.keys[0] : undefined;
  return {
    ...toDecisionView(decision),
    endpoint_slug: 'pool' in decision ? decision.pool.endpointSlug : null,
    key_id: key?.id ?? null,
    label: key?.label ?? null,
    skipped: toSkippedView(decision),
    candidates: 'candidates' in decision ? [...decision.candidates] : [],
    lists_read: listsRead,
  };
}

/** The error for a model whose provider does not speak the protocol of the request. Sets `x-should-retry: false`. */
export function toSurfaceError(response: Response, provider: Provider, { protocolName }: Surface): AppError {
  response.setHeader('x-should-retry', 'false');
  const surfaces = Object.keys(provider.surfaces);
  return new AppError(
    'surface_unsupported',
    `${provider.name} does not speak the ${protocolName} protocol. Use one of its own (${surfaces.join(', ')}), or a model of another provider.`,
    { extra: { surfaces } },
  );
}

/** 404. @param nearNames models of the caller with a similar name, shown after the detail. */
export function modelNotFound(detail: string, nearNames: readonly string[]): AppError {
  const advice = nearNames.length === 0 ? '' : ` Similar models: ${nearNames.join(', ')}.`;
  return new AppError('model_not_found', detail + advice, { extra: { candidates: nearNames } });
}

type RefusedDecision = Extract<GatewayDecision, { kind: 'refused' }>;

/** The error for a refused decision. Sets `x-should-retry: false`, which SDKs obey, since a retry cannot succeed. */
export function toDecisionError(response: Response, decision: RefusedDecision): AppError {
  response.setHeader('x-should-retry', 'false');
  const extra = { skipped: toSkippedView(decision) };
  switch (decision.code) {
    case 'model_missing':
      return new AppError('validation_failed', 'Name a model: this server has no default model.', {
        errors: [{ path: 'model', message: 'is required' }],
      });
    case 'model_not_found':
      return modelNotFound(
        'No key of yours serves this model, and the system default does not offer it.',
        decision.candidates,
      );
    case 'model_not_of_token':
      return new AppError(
        'model_not_found',
        'This token may not use this model. Name one of the models that the token was created for.',
      );
    case 'no_key_of_token':
      return new AppError(
        'no_usable_key',
        'None of the keys that this token may use can serve this request: they serve other models, were deleted, or ' +
          'your tier does not include stored keys.',
        { extra },
      );
    case 'ambiguous_model':
      return new AppError(
        'ambiguous_model',
        `Several of your keys serve this model. Name one of: ${decision.candidates.join(', ')}.`,
        { extra: { candidates: decision.candidates } },
      );
    case 'no_default_provider':
      return new AppError(
        'no_default_provider',
        'There is no key of yours for this model, and no system default.',
      );
    case 'key_undecryptable':
      return new AppError(
        'key_undecryptable',
        `No stored key for ${decision.provider} can be decrypted. Add the key again.`,
        { extra },
      );
    case 'no_usable_key':
      return new AppError(
        'no_usable_key',
        `Every key for ${decision.provider} is disabled, expired or in cooldown.`,
        { extra },
      );
  }
}
