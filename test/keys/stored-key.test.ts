import { randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import { parseFernetKey, encryptFernet } from '../../src/lib/crypto/fernet.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { maskKey } from '../../src/keys/key-format.ts';
import {
  MAX_VALUE_LENGTH,
  decryptKey,
  parsePool,
  encryptKey,
  type StoredKey,
} from '../../src/keys/stored-key.ts';
import { PROVIDERS } from '../../src/providers/index.ts';

const encryptionKey = randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
const keyring = createKeyring([encryptionKey]);
const place = { owner: 'user:0b8e7f3a-1111-4222-8333-944445555666', provider: 'custom' } as const;
const own = {
  ...place,
  id: 'abcDEF123456',
  key: 'sk-secret-0123456789',
  label: 'Mine',
  mask: 'sk-…6789',
  endpoint: 'https://llm.example/v1',
  createdAt: '2026-02-03T04:05:06.789Z',
  expiresAt: null,
  enabled: true,
};

function stored(value: string): StoredKey {
  const [key] = parsePool([value]).keys;
  if (key === undefined) throw new Error('not a stored key');
  return key;
}

/** A value whose token was made at `timeMs`. */
function valueAt(id: string, createdAt: string, timeMs: number): string {
  const value = JSON.parse(encryptKey(keyring, { ...own, id })) as Record<string, unknown>;
  const token = encryptFernet(parseFernetKey(encryptionKey), Buffer.from('x'), {
    timeMs,
    iv: randomBytes(16),
  });
  return JSON.stringify({ ...value, created_at: createdAt, token });
}

describe('a sealed key', () => {
  it('opens where it was put', () => {
    const key = stored(encryptKey(keyring, own));
    expect(decryptKey(keyring, place, key)).toEqual({ secret: own.key, endpoint: own.endpoint });
  });

  it('is in the layout that administrators see, with nothing of the key but its mask outside the token', () => {
    const value = encryptKey(keyring, own);
    expect(JSON.parse(value)).toEqual({
      v: 1,
      id: own.id,
      label: 'Mine',
      mask: 'sk-…6789',
      created_at: '2026-02-03T04:05:06.789Z',
      expires_at: null,
      enabled: true,
      endpoint: own.endpoint,
      token: expect.stringMatching(/^gAAAAA/),
    });
    expect(value).not.toContain('secret');
  });

  it('is updated when its token was made, and created when it was first added', () => {
    const before = Math.floor(Date.now() / 1000) * 1000;
    const key = stored(encryptKey(keyring, own));
    expect(key.createdAt).toBe('2026-02-03T04:05:06.789Z');
    expect(Date.parse(key.updatedAt)).toBeGreaterThanOrEqual(before);
  });

  const key = stored(encryptKey(keyring, own));
  it.each<[string, unknown]>([
    ['another owner', [{ ...place, owner: 'user:someone-else' }, key]],
    ['another provider', [{ ...place, provider: 'openai' }, key]],
    ['another id', [place, { ...key, id: 'abcDEF123457' }]],
    ['another endpoint', [place, { ...key, endpoint: 'https://thief.example/v1' }]],
    ['no endpoint', [place, { ...key, endpoint: null }]],
    ['another expiry', [place, { ...key, expiresAt: '2030-01-01T00:00:00.000Z' }]],
    [
      'an edited token',
      [place, { ...key, token: key.token.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')) }],
    ],
    ['no token at all', [place, { ...key, token: own.key }]],
  ])('does not open under %s', (_name, given) => {
    const [where, what] = given as [typeof place, StoredKey];
    expect(decryptKey(keyring, where, what)).toBeUndefined();
  });

  it('does not open under an encryption key that is not its own', () => {
    const other = createKeyring([
      randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_'),
    ]);
    expect(decryptKey(other, place, key)).toBeUndefined();
  });

  it('does not open when it was sealed as something else', () => {
    const sealed = (plain: unknown) => ({ ...key, token: keyring.encrypt(JSON.stringify(plain)) });
    const plain = {
      v: 1,
      kind: 'provider_key',
      owner: own.owner,
      provider: own.provider,
      id: own.id,
      key: own.key,
      endpoint: own.endpoint,
      expires_at: null,
    };
    expect(decryptKey(keyring, place, sealed(plain))).toBeDefined();
    for (const wrong of [
      { ...plain, kind: 'server_secret' },
      { ...plain, v: 2 },
      { ...plain, more: 1 },
      { ...plain, expires_at: undefined },
      own.key,
    ])
      expect(decryptKey(keyring, place, sealed(wrong))).toBeUndefined();
  });

  it.each(PROVIDERS.map((provider) => [provider.id, provider] as const))(
    'fits with 1,024 characters and a label of 120 (%s)',
    (_id, provider) => {
      const secret = provider.key.prefix + 'k'.repeat(1024 - provider.key.prefix.length);
      const value = encryptKey(keyring, {
        ...own,
        provider: provider.id,
        key: secret,
        label: 'ß'.repeat(120),
        mask: maskKey(provider, secret),
        endpoint: null,
      });
      expect(value.length).toBeLessThanOrEqual(MAX_VALUE_LENGTH);
    },
  );
});

describe('reading the values of an attribute', () => {
  it('orders by creation, then id, whatever order Keycloak answers in', () => {
    const values = [
      valueAt('b', '2026-01-02T00:00:00Z', 1000),
      valueAt('c', '2026-01-01T00:00:00Z', 1000),
      valueAt('a', '2026-01-02T00:00:00Z', 1000),
    ];
    for (const order of [values, values.toReversed()])
      expect(parsePool(order).keys.map((key) => key.id)).toEqual(['c', 'a', 'b']);
  });

  it('keeps the newest of an id that stands twice, and says which is superseded', () => {
    const old = valueAt('a', '2026-01-01T00:00:00Z', 1_000_000);
    const newer = valueAt('a', '2026-01-01T00:00:00Z', 2_000_000);
    for (const order of [
      [old, newer],
      [newer, old],
    ]) {
      const pool = parsePool(order);
      expect(pool.keys.map((key) => key.value)).toEqual([newer]);
      expect(pool.superseded).toEqual([old]);
    }
  });

  it('reads more than ten', () => {
    const values = Array.from({ length: 16 }, (_, index) =>
      valueAt(`k${index}`, '2026-01-01T00:00:00Z', 1000),
    );
    expect(parsePool(values).keys).toHaveLength(16);
  });

  it('sets aside what is no key of ours, byte for byte', () => {
    const good = valueAt('a', '2026-01-01T00:00:00Z', 1000);
    const noise = ['typed by hand ', '{"v":1}', 'null', '[]', '"text"', '{', good.replace('"v":1', '"v":9')];
    const pool = parsePool([noise[0] ?? '', good, ...noise.slice(1)]);
    expect(pool.keys.map((key) => key.value)).toEqual([good]);
    expect(pool.unreadable).toEqual(noise);
  });

  it('lists a key whose token was spoilt, so that its owner can see and delete it', () => {
    const value = JSON.stringify({ ...JSON.parse(encryptKey(keyring, own)), token: 'spoilt' });
    expect(stored(value)).toMatchObject({ id: own.id, updatedAt: own.createdAt });
  });
});
