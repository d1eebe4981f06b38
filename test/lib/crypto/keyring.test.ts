import { randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import {
  findFernetTime,
  decryptFernet,
  parseFernetKey,
  encryptFernet,
} from '../../../src/lib/crypto/fernet.ts';
import { createKeyring } from '../../../src/lib/crypto/keyring.ts';

const randomKey = () => randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_');

describe('a keyring', () => {
  it('encrypts with the first key and decrypts with every key', () => {
    const [oldKey, newKey] = [randomKey(), randomKey()];
    const before = createKeyring([oldKey]).encrypt('made earlier');
    const rotated = createKeyring([newKey, oldKey]);
    expect(rotated.decrypt(before)).toBe('made earlier');
    const now = rotated.encrypt('made now');
    expect(createKeyring([newKey]).decrypt(now)).toBe('made now');
    expect(createKeyring([oldKey]).decrypt(now)).toBeUndefined();
  });

  it('does not decrypt tokens of other keys', () => {
    const token = createKeyring([randomKey()]).encrypt('secret');
    expect(createKeyring([randomKey(), randomKey()]).decrypt(token)).toBeUndefined();
  });

  it('never creates the same token twice', () => {
    const ring = createKeyring([randomKey()]);
    expect(ring.encrypt('same')).not.toBe(ring.encrypt('same'));
  });

  it('does not decrypt bytes that are not text', () => {
    const key = randomKey();
    const token = encryptFernet(parseFernetKey(key), Buffer.from([0xff, 0xfe, 0x80]));
    expect(createKeyring([key]).decrypt(token)).toBeUndefined();
  });

  it('finds the index of the key that decrypts a token', () => {
    const keys = [randomKey(), randomKey(), randomKey()];
    const ring = createKeyring(keys);
    expect(ring.size).toBe(3);
    expect(keys.map((key) => ring.findKeyIndex(createKeyring([key]).encrypt('x')))).toEqual([0, 1, 2]);
    expect(ring.findKeyIndex(createKeyring([randomKey()]).encrypt('x'))).toBeUndefined();
    expect(ring.findKeyIndex('no token')).toBeUndefined();
  });

  it('re-encrypts a token with the first key, keeping its bytes and time', () => {
    const [oldKey, newKey] = [randomKey(), randomKey()];
    const bytes = Buffer.from('\ufeffbytes, a mark before them and ünïcode');
    const timeMs = Date.UTC(2020, 1, 2, 3, 4, 5);
    const token = encryptFernet(parseFernetKey(oldKey), bytes, { timeMs });
    const reencrypted = createKeyring([newKey, oldKey]).reencrypt(token) ?? '';
    expect(decryptFernet(parseFernetKey(newKey), reencrypted)).toEqual(bytes);
    expect(decryptFernet(parseFernetKey(oldKey), reencrypted)).toBeUndefined();
    expect(findFernetTime(reencrypted)).toEqual(new Date(timeMs));
    expect(createKeyring([randomKey()]).reencrypt(token)).toBeUndefined();
  });

  it('refuses an empty list of keys', () => {
    expect(() => createKeyring([])).toThrow('at least one');
  });
});
