import type { Tier } from '../../config/tiers.ts';

export const TIER_NAMES: Record<Tier, string> = {
  free: 'Free',
  trial: 'Trial',
  starter: 'Starter',
  professional: 'Professional',
  enterprise: 'Enterprise',
};
