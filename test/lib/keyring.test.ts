import { randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import { fernetTime, openFernet, parseFernetKey, sealFernet } from '../../src/lib/fernet.ts';
import { createKeyring } from '../../src/lib/keyring.ts';

const randomKey = () => randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_');

describe('the keyring', () => {
  it('seals under its first key and opens under each', () => {
    const [oldKey, newKey] = [randomKey(), randomKey()];
    const before = createKeyring([oldKey]).seal('made earlier');
    const rotated = createKeyring([newKey, oldKey]);
    expect(rotated.open(before)).toBe('made earlier');
    const now = rotated.seal('made now');
    expect(createKeyring([newKey]).open(now)).toBe('made now');
    expect(createKeyring([oldKey]).open(now)).toBeUndefined();
  });

  it('opens nothing under keys that are not its own', () => {
    const token = createKeyring([randomKey()]).seal('secret');
    expect(createKeyring([randomKey(), randomKey()]).open(token)).toBeUndefined();
  });

  it('never makes the same token twice', () => {
    const ring = createKeyring([randomKey()]);
    expect(ring.seal('same')).not.toBe(ring.seal('same'));
  });

  it('counts bytes that are no text as not openable', () => {
    const key = randomKey();
    const token = sealFernet(parseFernetKey(key), Buffer.from([0xff, 0xfe, 0x80]));
    expect(createKeyring([key]).open(token)).toBeUndefined();
  });

  it('tells which of its keys opens a token', () => {
    const keys = [randomKey(), randomKey(), randomKey()];
    const ring = createKeyring(keys);
    expect(ring.size).toBe(3);
    expect(keys.map((key) => ring.ringIndex(createKeyring([key]).seal('x')))).toEqual([0, 1, 2]);
    expect(ring.ringIndex(createKeyring([randomKey()]).seal('x'))).toBeUndefined();
    expect(ring.ringIndex('no token')).toBeUndefined();
  });

  it('seals a token again under its first key: the same bytes with the same time', () => {
    const [oldKey, newKey] = [randomKey(), randomKey()];
    const bytes = Buffer.from('\ufeffbytes, a mark before them and ünïcode');
    const timeMs = Date.UTC(2020, 1, 2, 3, 4, 5);
    const token = sealFernet(parseFernetKey(oldKey), bytes, { timeMs });
    const resealed = createKeyring([newKey, oldKey]).reseal(token) ?? '';
    expect(openFernet(parseFernetKey(newKey), resealed)).toEqual(bytes);
    expect(openFernet(parseFernetKey(oldKey), resealed)).toBeUndefined();
    expect(fernetTime(resealed)).toEqual(new Date(timeMs));
    expect(createKeyring([randomKey()]).reseal(token)).toBeUndefined();
  });

  it('refuses to exist without a key', () => {
    expect(() => createKeyring([])).toThrow('at least one');
  });
});
