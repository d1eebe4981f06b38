import type { Request, Response } from 'express';
import type { Tier } from '../config/tiers.ts';

/** What one may do with a credential; a session has every scope. */
export const SCOPES = ['chat', 'keys:read'] as const;
export type Scope = (typeof SCOPES)[number];

/** A person as Keycloak knows them now (at most 10 s old). */
export interface User {
  /** Keycloak's user id, the `sub` of its tokens. */
  id: string;
  username: string;
  email: string | null;
  name: string | null;
  tier: Tier;
}

/** Who is asking, by which credential. Exists only while its user exists and is enabled in Keycloak. */
export interface Principal {
  user: User;
  credential: 'session' | 'bearer';
  scopes: ReadonlySet<Scope>;
  /** Id of our own session row; null for a bearer token. */
  sessionId: string | null;
  /** Keycloak's session id (`sid`), by which a back-channel logout names it. */
  keycloakSessionId: string | null;
  /** When the user signed in or the token was issued, by Keycloak's clock (epoch ms, whole seconds). */
  signedInAtMs?: number;
}

/** Answers who is asking, or throws `unauthenticated` (401); one credential decides alone. */
export type Authenticate = (request: Request, response: Response) => Promise<Principal>;
