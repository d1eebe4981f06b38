import { isTierAtLeast, type Tier } from '../config/tiers.ts';
import { AppError, tierRequired } from '../lib/errors.ts';
import type { Principal, Scope } from './principal.ts';

/**
 * Who may call a route. There is no default: every route must declare it.
 * `session` admits only the session cookie; `{ scope }` also admits any credential with that scope.
 */
export type Access = 'public' | 'session' | { scope: Scope };

/** @returns `scope_required` or `tier_required` (403) unless the principal may call the route. */
export function findRefusal(
  route: { access: Access; tier?: Tier },
  principal: Principal,
): AppError | undefined {
  if (principal.credential !== 'session') {
    const allowed = typeof route.access === 'object' && principal.scopes.has(route.access.scope);
    if (!allowed) {
      return scopeRequired(route.access);
    }
  }
  return route.tier === undefined ? undefined : findTierRefusal(principal, route.tier);
}

function scopeRequired(access: Access): AppError {
  const remedy =
    typeof access === 'object'
      ? `It needs the scope ${access.scope}.`
      : 'It needs a session: sign in and use its cookie.';
  return new AppError('scope_required', `This credential has no access to this route. ${remedy}`);
}

/** Throws `tier_required` (403) with both tiers when the user's tier is below `required`. */
export function requireTier(principal: Principal, required: Tier): void {
  const refusal = findTierRefusal(principal, required);
  if (refusal !== undefined) throw refusal;
}

function findTierRefusal({ user }: Principal, required: Tier): AppError | undefined {
  return isTierAtLeast(user.tier, required) ? undefined : tierRequired(required, user.tier);
}
