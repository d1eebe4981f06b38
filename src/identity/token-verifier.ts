import {
  createRemoteJWKSet,
  customFetch,
  jwtVerify,
  type FetchImplementation,
  type JWTVerifyOptions,
} from 'jose';
import { z } from 'zod';
import { isAppError, unauthenticated } from '../lib/errors.ts';
import type { KeycloakFetch } from '../lib/keycloak/keycloak-fetch.ts';

/** Verified claims of an access token. */
export interface BearerToken {
  userId: string;
  /** Null for a token of a service account, which has no session. */
  keycloakSessionId: string | null;
  /** Keycloak's clock, epoch ms. */
  issuedAtMs: number;
}

/** Verified claims of a back-channel logout token. At least one of the two ids is set. */
export interface LogoutToken {
  userId: string | undefined;
  keycloakSessionId: string | undefined;
  issuedAtMs: number;
  expiresAtMs: number;
  jti: string;
}

/** Verifies tokens signed by Keycloak. */
export interface TokenVerifier {
  /** @throws AppError `unauthenticated` if the access token is not valid, or `keycloak_unavailable`. */
  verifyBearer(token: string): Promise<BearerToken>;
  /** Returns undefined if the logout token is not valid. @throws AppError `keycloak_unavailable`. */
  verifyLogoutToken(token: string): Promise<LogoutToken | undefined>;
}

export interface TokenVerifierDeps {
  /** Keycloak's address for browsers. */
  url: string;
  internalUrl: string;
  realm: string;
  webClientId: string;
  /** Clients whose access tokens are accepted. If empty, bearer tokens are off. */
  apiClientIds: readonly string[];
  fetch: KeycloakFetch;
}

/** Audience that the realm's mapper adds to access tokens for this app. */
const API_AUDIENCE = 'ops-center-api';
/** Without shared-secret algorithms: with one, an attacker could sign tokens with the public key. */
const ASYMMETRIC_ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
];
const CLOCK_TOLERANCE_S = 5;
/** Logout markers are kept for one hour, so older tokens are refused even if the realm allows them. */
const MAX_BEARER_TOKEN_AGE = '1h';
const LOGOUT_EVENT = 'http://schemas.openid.net/event/backchannel-logout';
/** Keycloak's logout tokens expire after 2 minutes. */
const MAX_LOGOUT_TOKEN_AGE_S = 300;

const BearerClaims = z.object({
  typ: z.literal('Bearer'),
  azp: z.string(),
  sub: z.string().min(1),
  sid: z.string().optional(),
  iat: z.number(),
});

/** OpenID Connect Back-Channel Logout 1.0, section 2.4 and 2.6. */
const LogoutClaims = z
  .object({
    sub: z.string().min(1).optional(),
    sid: z.string().min(1).optional(),
    jti: z.string().min(1).max(200),
    iat: z.number(),
    exp: z.number(),
    events: z.object({ [LOGOUT_EVENT]: z.looseObject({}) }),
    nonce: z.undefined().optional(),
  })
  .refine((claims) => claims.sub !== undefined || claims.sid !== undefined);

/** The realm's public keys are fetched on first use and cached. */
export function createTokenVerifier(deps: TokenVerifierDeps): TokenVerifier {
  const realm = `/realms/${encodeURIComponent(deps.realm)}`;
  const keys = createRemoteJWKSet(new URL(`${deps.internalUrl}${realm}/protocol/openid-connect/certs`), {
    [customFetch]: deps.fetch as unknown as FetchImplementation,
  });
  const common: JWTVerifyOptions = {
    issuer: deps.url + realm,
    algorithms: ASYMMETRIC_ALGORITHMS,
    clockTolerance: CLOCK_TOLERANCE_S,
    requiredClaims: ['exp', 'iat'],
  };

  /** Returns the claims of a valid token, otherwise undefined. Throws if Keycloak is unavailable. */
  async function readClaims(token: string, options: JWTVerifyOptions): Promise<unknown> {
    try {
      return (await jwtVerify(token, keys, { ...common, ...options })).payload;
    } catch (error) {
      if (isAppError(error)) throw error;
      return undefined;
    }
  }

  return {
    async verifyBearer(token) {
      if (deps.apiClientIds.length === 0) throw unauthenticated();
      const claims = BearerClaims.safeParse(
        await readClaims(token, { audience: API_AUDIENCE, maxTokenAge: MAX_BEARER_TOKEN_AGE }),
      );
      if (!claims.success || !deps.apiClientIds.includes(claims.data.azp)) throw unauthenticated();
      const { sub, sid, iat } = claims.data;
      return { userId: sub, keycloakSessionId: sid ?? null, issuedAtMs: iat * 1000 };
    },

    async verifyLogoutToken(token) {
      const claims = LogoutClaims.safeParse(
        await readClaims(token, {
          audience: deps.webClientId,
          typ: 'logout+jwt',
          maxTokenAge: MAX_LOGOUT_TOKEN_AGE_S,
        }),
      );
      if (!claims.success) return undefined;
      const { sub, sid, iat, exp, jti } = claims.data;
      return { userId: sub, keycloakSessionId: sid, issuedAtMs: iat * 1000, expiresAtMs: exp * 1000, jti };
    },
  };
}
