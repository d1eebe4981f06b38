import type { Request, Response } from 'express';
import type { Tier } from '../config/tiers.ts';

/** Permissions of a credential. A session has every scope. */
export const SCOPES = ['chat', 'keys:read', 'keys:write', 'run'] as const;
export type Scope = (typeof SCOPES)[number];

/** The personal token of a request, with its restrictions. */
export interface PrincipalToken {
  id: string;
  /** Names `provider/model` that it may use, literals or with one trailing `*`; null for any. */
  models: readonly string[] | null;
  /** Ids of the stored keys that it may use; null for any. */
  keyIds: readonly string[] | null;
}

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
  /** `bearer` is an access token of Keycloak, `token` a personal token. */
  credential: 'session' | 'bearer' | 'token';
  scopes: ReadonlySet<Scope>;
  /** Null for other credentials than a personal token. */
  token: PrincipalToken | null;
  /** Id of the session row; null for other credentials. */
  sessionId: string | null;
  /** Keycloak's session id (`sid`), which a back-channel logout names. */
  keycloakSessionId: string | null;
  /** Time of sign-in or token issue by Keycloak's clock (epoch ms, whole seconds). */
  signedInAtMs?: number;
  /**
   * When the user of a session last proved to Keycloak who they are. The app's clock, epoch ms. Missing or null where
   * that is not known.
   */
  authenticatedAtMs?: number | null;
}

/** Whom a request serves: the user, within the restrictions of the token. */
export type Caller = Pick<Principal, 'user' | 'token'>;

/** True unless the token names the keys that it may use and this is none of them. */
export function isKeyAllowed(token: PrincipalToken | null, keyId: string): boolean {
  return token?.keyIds?.includes(keyId) ?? true;
}

/** Returns the principal or throws `unauthenticated` (401). Only one credential is considered. */
export type Authenticate = (request: Request, response: Response) => Promise<Principal>;
