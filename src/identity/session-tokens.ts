import { z } from 'zod';
import type { Keyring } from '../lib/keyring.ts';
import { userOwner } from '../lib/owner.ts';

/** The tokens of a sign-in that the session keeps. The access token is not kept: nothing here uses it. */
export interface SessionTokens {
  idToken: string;
  refreshToken: string;
}

const Sealed = z.object({
  v: z.literal(1),
  kind: z.literal('session_tokens'),
  owner: z.string(),
  keycloakSessionId: z.string(),
  idToken: z.string(),
  refreshToken: z.string(),
});

/** Whose tokens they are: sealed inside, so that they cannot be moved to another session's row. */
interface Holder {
  userId: string;
  keycloakSessionId: string;
}

/** Encrypts the tokens for the session's row. */
export function sealTokens(keyring: Keyring, holder: Holder, tokens: SessionTokens): string {
  return keyring.seal(
    JSON.stringify({
      v: 1,
      kind: 'session_tokens',
      owner: userOwner(holder.userId),
      keycloakSessionId: holder.keycloakSessionId,
      idToken: tokens.idToken,
      refreshToken: tokens.refreshToken,
    } satisfies z.input<typeof Sealed>),
  );
}

/** Decrypts the tokens; undefined when they were altered, lie in another's row or no key fits. */
export function openTokens(keyring: Keyring, holder: Holder, sealed: string): SessionTokens | undefined {
  const text = keyring.open(sealed);
  const parsed = Sealed.safeParse(text === undefined ? undefined : JSON.parse(text));
  if (!parsed.success) return undefined;
  const { owner, keycloakSessionId, idToken, refreshToken } = parsed.data;
  const fits = owner === userOwner(holder.userId) && keycloakSessionId === holder.keycloakSessionId;
  return fits ? { idToken, refreshToken } : undefined;
}
