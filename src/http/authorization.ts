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

/** Steps that an unattended browser must not be able to take need credentials that were entered this recently. */
const MAX_SIGN_IN_AGE_S = 15 * 60;

/**
 * Call it where the step is written: time can pass between the first check of a request and its write.
 * @throws AppError `reauth_required` (403) with `login_url` unless the user has entered credentials within 15 minutes.
 *   Also for other credentials than a session, and where Keycloak does not report when the user entered them.
 */
export function requireRecentSignIn({
  credential,
  authenticatedAtMs,
}: Pick<Principal, 'credential' | 'authenticatedAtMs'>): void {
  const ageMs = Date.now() - (authenticatedAtMs ?? -Infinity);
  if (credential === 'session' && ageMs <= MAX_SIGN_IN_AGE_S * 1000) return;
  throw new AppError(
    'reauth_required',
    'This step needs a sign-in of the last 15 minutes. Sign in again, then repeat it.',
    // A page replaces return_to by its own address.
    { extra: { login_url: `/auth/login?max_age=${MAX_SIGN_IN_AGE_S}&return_to=/` } },
  );
}

function findTierRefusal({ user }: Principal, required: Tier): AppError | undefined {
  return isTierAtLeast(user.tier, required) ? undefined : tierRequired(required, user.tier);
}
