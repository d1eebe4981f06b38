import { describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { openTokens, sealTokens } from '../../src/identity/session-tokens.ts';
import { createKeyring } from '../../src/lib/keyring.ts';

const newKey = () => `${randomBytes(32).toString('base64url')}=`;
const key = newKey();
const keyring = createKeyring([key]);
const holder = { userId: 'u1', keycloakSessionId: 's1' };
const tokens = { idToken: 'id', refreshToken: 'refresh' };
const sealed = sealTokens(keyring, holder, tokens);

describe("a session's tokens", () => {
  it('come back for the session that they belong to, also after a change of keys', () => {
    expect(openTokens(keyring, holder, sealed)).toEqual(tokens);
    expect(openTokens(createKeyring([newKey(), key]), holder, sealed)).toEqual(tokens);
  });

  it.each([
    ['another user', { ...holder, userId: 'u2' }],
    ['another session', { ...holder, keycloakSessionId: 's2' }],
  ])('do not open in the row of %s', (_name, other) => {
    expect(openTokens(keyring, other, sealed)).toBeUndefined();
  });

  it('do not open when they were altered, when the key is lost, or when they are something else', () => {
    expect(openTokens(keyring, holder, `${sealed.slice(0, 30)}A${sealed.slice(31)}`)).toBeUndefined();
    expect(openTokens(createKeyring([newKey()]), holder, sealed)).toBeUndefined();
    const other = keyring.seal(JSON.stringify({ v: 1, kind: 'provider_key', owner: 'user:u1' }));
    expect(openTokens(keyring, holder, other)).toBeUndefined();
  });
});
