/**
 * Subscription tiers, lowest first. The tier is a user attribute in Keycloak (`subscription_tier`)
 * that only administrators can edit.
 */
export const TIERS = ['free', 'trial', 'starter', 'professional', 'enterprise'] as const;
export type Tier = (typeof TIERS)[number];

/** The lowest tier whose users may store and use their own keys and servers. */
export const BYOK_TIER: Tier = 'starter';

/** True when `tier` is `required` or higher. */
export function isTierAtLeast(tier: Tier, required: Tier): boolean {
  return TIERS.indexOf(tier) >= TIERS.indexOf(required);
}

/** Reads a tier from the identity provider; a missing or unknown tier is `free`. */
export function parseTier(value: unknown): Tier {
  return TIERS.find((tier) => tier === value) ?? 'free';
}
