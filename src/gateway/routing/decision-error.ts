import type { Response } from 'express';
import { AppError } from '../../lib/errors.ts';
import type { GatewayDecision } from './routing.ts';

type RefusedDecision = Extract<GatewayDecision, { kind: 'refused' }>;

/** The error for a refused decision. Sets `x-should-retry: false`, which SDKs obey, since a retry cannot succeed. */
export function toDecisionError(response: Response, decision: RefusedDecision): AppError {
  response.setHeader('x-should-retry', 'false');
  switch (decision.code) {
    case 'model_missing':
      return new AppError('validation_failed', 'Name a model: this server has no default model.', {
        errors: [{ path: 'model', message: 'is required' }],
      });
    case 'model_not_found':
      return new AppError(
        'model_not_found',
        'No key of yours serves this model, and the system default does not offer it.',
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
        {
          extra: { skipped: toSkippedView(decision) },
        },
      );
    case 'no_usable_key':
      return new AppError(
        'no_usable_key',
        `Every key for ${decision.provider} is disabled, expired or in cooldown.`,
        {
          extra: { skipped: toSkippedView(decision) },
        },
      );
  }
}

/** The skipped keys as they are sent. */
export function toSkippedView(decision: GatewayDecision): { key_id: string; reason: string }[] {
  if (!('skipped' in decision)) return [];
  return decision.skipped.map(({ keyId, reason }) => ({ key_id: keyId, reason }));
}
