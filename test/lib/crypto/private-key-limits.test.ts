import { describe, expect, it } from '@jest/globals';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { findPrivateKeyError } from '../../../src/lib/crypto/private-key-limits.ts';
import {
  derInteger,
  derOctets,
  derOid,
  toPem,
  craftRsaKey,
  derSequence,
} from '../../support/crafted-private-keys.ts';

/** The overloads take one kind each. */
const makePair = generateKeyPairSync as unknown as (kind: string, size: object) => { privateKey: KeyObject };

const RSA = '2a864886f70d010101';
const CURVE = '2a8648ce3d0201';
const pkcs1 = (...given: Parameters<typeof craftRsaKey>) => toPem('RSA PRIVATE KEY', craftRsaKey(...given));
const pkcs8 = (kind: string, parameters: Buffer, key: Buffer) =>
  toPem('PRIVATE KEY', derSequence(derInteger(0), derSequence(derOid(kind), parameters), derOctets(key)));

describe('a private key without a passphrase', () => {
  it.each([
    ['rsa', { modulusLength: 2048 }, 'pkcs1'],
    ['rsa', { modulusLength: 3072 }, 'pkcs8'],
    ['ec', { namedCurve: 'P-256' }, 'sec1'],
    ['ec', { namedCurve: 'P-384' }, 'pkcs8'],
    ['ec', { namedCurve: 'P-521' }, 'sec1'],
    ['ed25519', {}, 'pkcs8'],
  ] as const)('is accepted as people have it: %s, %j, in %s', (kind, size, type) => {
    const { privateKey } = makePair(kind, size);
    const text = privateKey.export({ type, format: 'pem' }).toString();
    expect(findPrivateKeyError(text)).toBeUndefined();
    expect(findPrivateKeyError(text.replaceAll('\n', '\r\n'))).toBeUndefined();
    const withCurve = `-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n${text}`;
    expect(findPrivateKeyError(withCurve)).toBeUndefined();
  });

  it('of RSA has at most 8192 bits', () => {
    expect(findPrivateKeyError(pkcs1(8192))).toBeUndefined();
    expect(findPrivateKeyError(pkcs1(8194))).toMatch(/at most 8192 bits/);
    expect(findPrivateKeyError(pkcs8(RSA, Buffer.of(5, 0), craftRsaKey(16_384)))).toMatch(
      /at most 8192 bits/,
    );
  });

  it.each([{ e: 33 }, { d: 2049 }, { p: 1026 }, { q: 1026 }, { dp: 1025 }, { dq: 1025 }, { qi: 1025 }])(
    'of RSA has no number that is longer than it can be: %j',
    (given) => {
      expect(findPrivateKeyError(pkcs1(2048, given))).toMatch(/do not belong together/);
    },
  );

  it.each([
    ['DSA', pkcs8('2a8648ce380401', derSequence(derInteger(7), derInteger(3), derInteger(2)), derInteger(1))],
    ['DH', pkcs8('2a864886f70d010301', derSequence(derInteger(7), derInteger(2)), derInteger(1))],
    ['another curve', pkcs8(CURVE, derOid('2b8104000a'), derSequence(derInteger(1)))],
    ['a curve that is written out', pkcs8(CURVE, derSequence(derInteger(1)), derSequence(derInteger(1)))],
    [
      'RSA of several primes',
      toPem('RSA PRIVATE KEY', derSequence(...Array.from({ length: 10 }, () => derInteger(1)))),
    ],
    ['DSA of its own form', toPem('DSA PRIVATE KEY', derSequence(derInteger(0)))],
  ])('is refused for %s', (_kind, text) => {
    expect(findPrivateKeyError(text)).toMatch(/of a kind that is not used/);
  });

  it('is refused by its length before it is read', () => {
    expect(findPrivateKeyError(`${pkcs1(2048)}${' '.repeat(16_384)}`)).toMatch(/at most 16384 characters/);
  });

  it('is refused beside another, of which nobody knows who reads which', () => {
    expect(findPrivateKeyError(pkcs1(2048) + pkcs1(16_384))).toBeDefined();
    expect(findPrivateKeyError(`${pkcs1(2048)}-----BEGIN DSA PARAMETERS-----\n`)).toMatch(/can be read/);
  });

  it('is refused where it is cut off', () => {
    const whole = craftRsaKey(2048);
    for (const length of [1, 3, 100, whole.length - 1])
      expect(findPrivateKeyError(toPem('RSA PRIVATE KEY', whole.subarray(0, length)))).toMatch(/can be read/);
    expect(findPrivateKeyError(toPem('RSA PRIVATE KEY', Buffer.of(0x30, 0x80, 0, 0)))).toMatch(/can be read/);
  });
});
