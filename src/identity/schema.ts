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
  /**
   * When the user last proved to Keycloak who they are, e.g. with the password. The app's clock, epoch ms. Null where
   * Keycloak does not report it.
   */
  authenticatedAtMs: z.number().nullable().default(null),
  /** The `User-Agent` of the sign-in. */
  client: z.string().nullable().default(null),
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

/** A session as its user sees it. `id` is not the secret of the cookie. */
export const SessionView = z.object({
  id: z.string(),
  created_at: z.iso.datetime(),
  /** Written at most once a minute. */
  last_used_at: z.iso.datetime(),
  client: z.string().nullable(),
  /** Whether it is the session of this request. */
  current: z.boolean(),
});
export type SessionView = z.output<typeof SessionView>;

export const SessionParams = z.object({ id: z.string() });

export const SessionsEnded = z.object({
  message: z.string(),
  ended: z.number(),
  /** False when a session of Keycloak behind them may go on. */
  keycloak_ended: z.boolean(),
});
export type SessionsEnded = z.output<typeof SessionsEnded>;

/**
 * C0 control characters and DEL, raw or percent-encoded, and backslashes. Browsers drop control characters and
 * read a backslash as a slash, so `/\t/x` becomes `//x`.
 */
// eslint-disable-next-line no-control-regex -- the pattern matches control characters on purpose
const UNSAFE_CHARACTERS = /[\u0000-\u001f\u007f\\]|%[01][0-9a-f]|%7f|%5c/i;
const MAX_RETURN_TO_LENGTH = 1_024;
/** Stands for the app's origin, which the path does not depend on. */
const ANY_ORIGIN = 'https://origin.invalid';

/** Path of this app, with query and fragment, as a browser would request it; undefined for any other text. */
function toOwnPath(text: string): string | undefined {
  if (!text.startsWith('/') || UNSAFE_CHARACTERS.test(text) || !URL.canParse(text, ANY_ORIGIN))
    return undefined;
  const { origin, pathname, search, hash } = new URL(text, ANY_ORIGIN);
  // A path of `//x` would name another host.
  return origin === ANY_ORIGIN && !pathname.startsWith('//') ? pathname + search + hash : undefined;
}

/** The address to open after a sign-in, of the app's own origin. */
const ReturnTo = z
  .string()
  .max(MAX_RETURN_TO_LENGTH, `must have ${MAX_RETURN_TO_LENGTH} characters or fewer`)
  .transform((text, context) => {
    const path = toOwnPath(text);
    if (path !== undefined) return path;
    context.addIssue({ code: 'custom', message: 'must be a path of this site, e.g. /keys' });
    return z.NEVER;
  });

/** Query of `GET /auth/login`. */
export const LoginQuery = z.object({
  /** Seconds. Keycloak asks for the credentials again when they were entered longer ago. */
  max_age: z
    .string()
    .regex(/^\d{1,5}$/, 'must be a number of seconds')
    .transform(Number)
    .optional(),
  return_to: ReturnTo.default('/'),
});
export type LoginQuery = z.output<typeof LoginQuery>;

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
