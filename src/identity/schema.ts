import { z } from 'zod';
import type { User } from '../http/principal.ts';
import { BYOK_TIER, isTierAtLeast, TIERS } from '../config/tiers.ts';

/** What a session's row holds beside the cookie's facts. SQL finds rows by `userId` and `keycloakSessionId`. */
export const SessionContent = z.object({
  userId: z.string(),
  /** Keycloak's `sid`. */
  keycloakSessionId: z.string(),
  /** Keycloak's clock, epoch ms. */
  signedInAtMs: z.number(),
  /** Sealed, see session-tokens.ts. */
  tokens: z.string(),
  /** Our clock, epoch ms: from then on the next use asks Keycloak whether the sign-in still stands. */
  refreshAtMs: z.number(),
});
export type SessionContent = z.output<typeof SessionContent>;

/** A session and the id of its row. */
export interface StoredSession extends SessionContent {
  id: string;
}

/** `GET /api/v1/me` as docs/api.md has it. */
export const Me = z.object({
  id: z.string(),
  username: z.string(),
  email: z.string().nullable(),
  name: z.string().nullable(),
  tier: z.enum(TIERS),
  features: z.object({ byok: z.boolean(), execution_servers: z.boolean(), local_execution: z.boolean() }),
  organizations: z.array(z.never()),
});

/** The wire form of a user. Organizations are not built yet. */
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
