import type { Request, Response } from 'express';
import type { Tier } from '../config/tiers.ts';

/** Permissions of a credential. A session has every scope. */
export const SCOPES = ['chat', 'keys:read'] as const;
export type Scope = (typeof SCOPES)[number];

/** A user as stored in Keycloak, at most 10 s old. */
export interface User {
  /** Keycloak's user id, the `sub` of its tokens. */
  id: string;
  username: string;
  email: string | null;
  name: string | null;
  tier: Tier;
}

/** The authenticated user and credential. Created only for users that exist and are enabled in Keycloak. */
export interface Principal {
  user: User;
  credential: 'session' | 'bearer';
  scopes: ReadonlySet<Scope>;
  /** Id of the session row; null for a bearer token. */
  sessionId: string | null;
  /** Keycloak's session id (`sid`), which a back-channel logout names. */
  keycloakSessionId: string | null;
  /** Time of sign-in or token issue by Keycloak's clock (epoch ms, whole seconds). */
  signedInAtMs?: number;
}

/** Returns the principal or throws `unauthenticated` (401). Only one credential is considered. */
export type Authenticate = (request: Request, response: Response) => Promise<Principal>;
