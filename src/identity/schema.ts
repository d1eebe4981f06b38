import { z } from 'zod';
import type { User } from '../http/principal.ts';
import { BYOK_TIER, isTierAtLeast, TIERS } from '../config/tiers.ts';

/** Content of a session row, besides the cookie settings. SQL selects rows by `userId` and `keycloakSessionId`. */
export const SessionContent = z.object({
  userId: z.string(),
  /** Keycloak's `sid`. */
  keycloakSessionId: z.string(),
  /** Keycloak's clock, epoch ms. */
  signedInAtMs: z.number(),
  /** Encrypted, see session-tokens.ts. */
  tokens: z.string(),
  /** The app's clock, epoch ms. The first use after this time checks with Keycloak that the sign-in is valid. */
  refreshAtMs: z.number(),
});
export type SessionContent = z.output<typeof SessionContent>;

/** Session content with the id of its row. */
export interface StoredSession extends SessionContent {
  id: string;
}

/** Response of `GET /api/v1/me`, see docs/api.md. */
export const Me = z.object({
  id: z.string(),
  username: z.string(),
  email: z.string().nullable(),
  name: z.string().nullable(),
  tier: z.enum(TIERS),
  features: z.object({ byok: z.boolean(), execution_servers: z.boolean(), local_execution: z.boolean() }),
  organizations: z.array(z.never()),
});

/** `organizations` is empty: they are not implemented yet. */
export function toMe(user: User, canRunLocally: boolean): z.input<typeof Me> {
  const { id, username, email, name, tier } = user;
  const hasTier = isTierAtLeast(tier, BYOK_TIER);
  const features = {
    byok: hasTier,
    execution_servers: hasTier,
    local_execution: hasTier && canRunLocally,
  };
  return { id, username, email, name, tier, features, organizations: [] };
}
