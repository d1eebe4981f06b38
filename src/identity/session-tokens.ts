import { z } from 'zod';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { userOwner } from '../lib/owner.ts';

/** Tokens stored with a session. The access token is not stored, because the app does not use it. */
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

/** Encrypted with the tokens, so that they cannot be used in the row of another session. */
interface SessionBinding {
  userId: string;
  keycloakSessionId: string;
}

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

/** Decrypts tokens; undefined if they were altered, belong to another session, or no key decrypts them. */
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
