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

describe('the keyring', () => {
  it('seals under its first key and opens under each', () => {
    const [oldKey, newKey] = [randomKey(), randomKey()];
    const before = createKeyring([oldKey]).encrypt('made earlier');
    const rotated = createKeyring([newKey, oldKey]);
    expect(rotated.decrypt(before)).toBe('made earlier');
    const now = rotated.encrypt('made now');
    expect(createKeyring([newKey]).decrypt(now)).toBe('made now');
    expect(createKeyring([oldKey]).decrypt(now)).toBeUndefined();
  });

  it('opens nothing under keys that are not its own', () => {
    const token = createKeyring([randomKey()]).encrypt('secret');
    expect(createKeyring([randomKey(), randomKey()]).decrypt(token)).toBeUndefined();
  });

  it('never makes the same token twice', () => {
    const ring = createKeyring([randomKey()]);
    expect(ring.encrypt('same')).not.toBe(ring.encrypt('same'));
  });

  it('counts bytes that are no text as not openable', () => {
    const key = randomKey();
    const token = encryptFernet(parseFernetKey(key), Buffer.from([0xff, 0xfe, 0x80]));
    expect(createKeyring([key]).decrypt(token)).toBeUndefined();
  });

  it('tells which of its keys opens a token', () => {
    const keys = [randomKey(), randomKey(), randomKey()];
    const ring = createKeyring(keys);
    expect(ring.size).toBe(3);
    expect(keys.map((key) => ring.findKeyIndex(createKeyring([key]).encrypt('x')))).toEqual([0, 1, 2]);
    expect(ring.findKeyIndex(createKeyring([randomKey()]).encrypt('x'))).toBeUndefined();
    expect(ring.findKeyIndex('no token')).toBeUndefined();
  });

  it('seals a token again under its first key: the same bytes with the same time', () => {
    const [oldKey, newKey] = [randomKey(), randomKey()];
    const bytes = Buffer.from('\ufeffbytes, a mark before them and ünïcode');
    const timeMs = Date.UTC(2020, 1, 2, 3, 4, 5);
    const token = encryptFernet(parseFernetKey(oldKey), bytes, { timeMs });
    const resealed = createKeyring([newKey, oldKey]).reencrypt(token) ?? '';
    expect(decryptFernet(parseFernetKey(newKey), resealed)).toEqual(bytes);
    expect(decryptFernet(parseFernetKey(oldKey), resealed)).toBeUndefined();
    expect(findFernetTime(resealed)).toEqual(new Date(timeMs));
    expect(createKeyring([randomKey()]).reencrypt(token)).toBeUndefined();
  });

  it('refuses to exist without a key', () => {
    expect(() => createKeyring([])).toThrow('at least one');
  });
});
