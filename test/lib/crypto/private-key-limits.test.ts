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

/** Node's overloads accept one key type each. */
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
  ] as const)('is accepted in common types and formats: %s, %j, in %s', (kind, size, type) => {
    const { privateKey } = makePair(kind, size);
    const text = privateKey.export({ type, format: 'pem' }).toString();
    expect(findPrivateKeyError(text)).toBeUndefined();
    expect(findPrivateKeyError(text.replaceAll('\n', '\r\n'))).toBeUndefined();
    const withCurve = `-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n${text}`;
    expect(findPrivateKeyError(withCurve)).toBeUndefined();
  });

  it('is refused for RSA with more than 8192 bits', () => {
    expect(findPrivateKeyError(pkcs1(8192))).toBeUndefined();
    expect(findPrivateKeyError(pkcs1(8194))).toMatch(/at most 8192 bits/);
    expect(findPrivateKeyError(pkcs8(RSA, Buffer.of(5, 0), craftRsaKey(16_384)))).toMatch(
      /at most 8192 bits/,
    );
  });

  it.each([{ e: 33 }, { d: 2049 }, { p: 1026 }, { q: 1026 }, { dp: 1025 }, { dq: 1025 }, { qi: 1025 }])(
    'is refused for RSA with a number that is too long: %j',
    (given) => {
      expect(findPrivateKeyError(pkcs1(2048, given))).toMatch(/are inconsistent/);
    },
  );

  it.each([
    ['DSA', pkcs8('2a8648ce380401', derSequence(derInteger(7), derInteger(3), derInteger(2)), derInteger(1))],
    ['DH', pkcs8('2a864886f70d010301', derSequence(derInteger(7), derInteger(2)), derInteger(1))],
    ['another curve', pkcs8(CURVE, derOid('2b8104000a'), derSequence(derInteger(1)))],
    [
      'a curve with explicit parameters',
      pkcs8(CURVE, derSequence(derInteger(1)), derSequence(derInteger(1))),
    ],
    [
      'RSA with more than two primes',
      toPem('RSA PRIVATE KEY', derSequence(...Array.from({ length: 10 }, () => derInteger(1)))),
    ],
    ['DSA in its own format', toPem('DSA PRIVATE KEY', derSequence(derInteger(0)))],
  ])('is refused for %s', (_kind, text) => {
    expect(findPrivateKeyError(text)).toMatch(/is not supported/);
  });

  it('is refused for its length before it is parsed', () => {
    expect(findPrivateKeyError(`${pkcs1(2048)}${' '.repeat(16_384)}`)).toMatch(/at most 16384 characters/);
  });

  it('is refused together with a second key, because libraries could read different ones', () => {
    expect(findPrivateKeyError(pkcs1(2048) + pkcs1(16_384))).toBeDefined();
    expect(findPrivateKeyError(`${pkcs1(2048)}-----BEGIN DSA PARAMETERS-----\n`)).toMatch(/cannot be read/);
  });

  it('is refused when it is truncated', () => {
    const whole = craftRsaKey(2048);
    for (const length of [1, 3, 100, whole.length - 1])
      expect(findPrivateKeyError(toPem('RSA PRIVATE KEY', whole.subarray(0, length)))).toMatch(
        /cannot be read/,
      );
    expect(findPrivateKeyError(toPem('RSA PRIVATE KEY', Buffer.of(0x30, 0x80, 0, 0)))).toMatch(
      /cannot be read/,
    );
  });
});
