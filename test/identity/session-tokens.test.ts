import { describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { decryptSessionTokens, encryptSessionTokens } from '../../src/identity/session-tokens.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';

const newKey = () => `${randomBytes(32).toString('base64url')}=`;
const key = newKey();
const keyring = createKeyring([key]);
const session = { userId: 'u1', keycloakSessionId: 's1' };
const tokens = { idToken: 'id', refreshToken: 'refresh' };
const ciphertext = encryptSessionTokens(keyring, session, tokens);

describe('session tokens', () => {
  it('are decrypted for their own session, also with an older key of the keyring', () => {
    expect(decryptSessionTokens(keyring, session, ciphertext)).toEqual(tokens);
    expect(decryptSessionTokens(createKeyring([newKey(), key]), session, ciphertext)).toEqual(tokens);
  });

  it.each([
    ['another user', { ...session, userId: 'u2' }],
    ['another session', { ...session, keycloakSessionId: 's2' }],
  ])('are not decrypted for %s', (_name, other) => {
    expect(decryptSessionTokens(keyring, other, ciphertext)).toBeUndefined();
  });

  it('are not decrypted if they were altered, the key is missing, or the text is of another kind', () => {
    expect(
      decryptSessionTokens(keyring, session, `${ciphertext.slice(0, 30)}A${ciphertext.slice(31)}`),
    ).toBeUndefined();
    expect(decryptSessionTokens(createKeyring([newKey()]), session, ciphertext)).toBeUndefined();
    const other = keyring.encrypt(JSON.stringify({ v: 1, kind: 'provider_key', owner: 'user:u1' }));
    expect(decryptSessionTokens(keyring, session, other)).toBeUndefined();
  });
});
