import { z } from 'zod';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { userOwner } from '../lib/owner.ts';

/** The tokens of a sign-in that the session keeps. The access token is not kept: nothing here uses it. */
export interface SessionTokens {
  idToken: string;
  refreshToken: string;
}

const StoredTokens = z.object({
  v: z.literal(1),
  kind: z.literal('session_tokens'),
  owner: z.string(),
  keycloakSessionId: z.string(),
  idToken: z.string(),
  refreshToken: z.string(),
});

/** Whose tokens they are: sealed inside, so that they cannot be moved to another session's row. */
interface SessionBinding {
  userId: string;
  keycloakSessionId: string;
}

/** Encrypts the tokens for the session's row. */
export function encryptSessionTokens(
  keyring: Keyring,
  session: SessionBinding,
  tokens: SessionTokens,
): string {
  return keyring.encrypt(
    JSON.stringify({
      v: 1,
      kind: 'session_tokens',
      owner: userOwner(session.userId),
      keycloakSessionId: session.keycloakSessionId,
      idToken: tokens.idToken,
      refreshToken: tokens.refreshToken,
    } satisfies z.input<typeof StoredTokens>),
  );
}

/** Decrypts the tokens; undefined when they were altered, lie in another's row or no key fits. */
export function decryptSessionTokens(
  keyring: Keyring,
  session: SessionBinding,
  ciphertext: string,
): SessionTokens | undefined {
  const text = keyring.decrypt(ciphertext);
  const parsed = StoredTokens.safeParse(text === undefined ? undefined : JSON.parse(text));
  if (!parsed.success) return undefined;
  const { owner, keycloakSessionId, idToken, refreshToken } = parsed.data;
  const isBound = owner === userOwner(session.userId) && keycloakSessionId === session.keycloakSessionId;
  return isBound ? { idToken, refreshToken } : undefined;
}
