import { randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import { parseFernetKey, encryptFernet } from '../../src/lib/crypto/fernet.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import {
  MAX_VALUE_LENGTH,
  decryptKey,
  parsePool,
  encryptKey,
  maskKey,
  type StoredKey,
} from '../../src/keys/stored-key.ts';
import { custom } from '../../src/providers/custom.ts';
import { PROVIDERS } from '../../src/providers/index.ts';
import { openai } from '../../src/providers/openai.ts';
import { openrouter } from '../../src/providers/openrouter.ts';
import type { Provider } from '../../src/providers/provider.ts';

const encryptionKey = randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
const keyring = createKeyring([encryptionKey]);
const location = { owner: 'user:0b8e7f3a-1111-4222-8333-944445555666', provider: 'custom' } as const;
const newKey = {
  ...location,
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

/** A stored value with a token of the given time. */
function valueAt(id: string, createdAt: string, timeMs: number): string {
  const value = JSON.parse(encryptKey(keyring, { ...newKey, id })) as Record<string, unknown>;
  const token = encryptFernet(parseFernetKey(encryptionKey), Buffer.from('x'), {
    timeMs,
    iv: randomBytes(16),
  });
  return JSON.stringify({ ...value, created_at: createdAt, token });
}

describe('an encrypted key', () => {
  it('decrypts with its own owner, provider, id, endpoint and expiry', () => {
    const key = stored(encryptKey(keyring, newKey));
    expect(decryptKey(keyring, location, key)).toEqual({ secret: newKey.key, endpoint: newKey.endpoint });
  });

  it('has the documented layout, with only the mask of the key outside the token', () => {
    const value = encryptKey(keyring, newKey);
    expect(JSON.parse(value)).toEqual({
      v: 1,
      id: newKey.id,
      label: 'Mine',
      mask: 'sk-…6789',
      created_at: '2026-02-03T04:05:06.789Z',
      expires_at: null,
      enabled: true,
      endpoint: newKey.endpoint,
      token: expect.stringMatching(/^gAAAAA/),
    });
    expect(value).not.toContain('secret');
  });

  it('has the time of its token as update time, and keeps its creation time', () => {
    const before = Math.floor(Date.now() / 1000) * 1000;
    const key = stored(encryptKey(keyring, newKey));
    expect(key.createdAt).toBe('2026-02-03T04:05:06.789Z');
    expect(Date.parse(key.updatedAt)).toBeGreaterThanOrEqual(before);
  });

  const key = stored(encryptKey(keyring, newKey));
  it.each<[string, unknown]>([
    ['another owner', [{ ...location, owner: 'user:someone-else' }, key]],
    ['another provider', [{ ...location, provider: 'openai' }, key]],
    ['another id', [location, { ...key, id: 'abcDEF123457' }]],
    ['another endpoint', [location, { ...key, endpoint: 'https://thief.example/v1' }]],
    ['no endpoint', [location, { ...key, endpoint: null }]],
    ['another expiry', [location, { ...key, expiresAt: '2030-01-01T00:00:00.000Z' }]],
    [
      'an edited token',
      [location, { ...key, token: key.token.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')) }],
    ],
    ['no token at all', [location, { ...key, token: newKey.key }]],
  ])('does not decrypt with %s', (_name, given) => {
    const [keyLocation, storedKey] = given as [typeof location, StoredKey];
    expect(decryptKey(keyring, keyLocation, storedKey)).toBeUndefined();
  });

  it('does not decrypt with another encryption key', () => {
    const other = createKeyring([
      randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_'),
    ]);
    expect(decryptKey(other, location, key)).toBeUndefined();
  });

  it('does not decrypt with a plaintext of another kind, version or shape', () => {
    const withPlaintext = (plain: unknown) => ({ ...key, token: keyring.encrypt(JSON.stringify(plain)) });
    const plain = {
      v: 1,
      kind: 'provider_key',
      owner: newKey.owner,
      provider: newKey.provider,
      id: newKey.id,
      key: newKey.key,
      endpoint: newKey.endpoint,
      expires_at: null,
    };
    expect(decryptKey(keyring, location, withPlaintext(plain))).toBeDefined();
    for (const wrong of [
      { ...plain, kind: 'server_secret' },
      { ...plain, v: 2 },
      { ...plain, more: 1 },
      { ...plain, expires_at: undefined },
      newKey.key,
    ])
      expect(decryptKey(keyring, location, withPlaintext(wrong))).toBeUndefined();
  });

  it.each(PROVIDERS.map((provider) => [provider.id, provider] as const))(
    'fits into an attribute value with 1,024 characters and a label of 120 (%s)',
    (_id, provider) => {
      const secret = provider.key.prefix + 'k'.repeat(1024 - provider.key.prefix.length);
      const value = encryptKey(keyring, {
        ...newKey,
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
  it('orders by creation, then id, in any order of values from Keycloak', () => {
    const values = [
      valueAt('b', '2026-01-02T00:00:00Z', 1000),
      valueAt('c', '2026-01-01T00:00:00Z', 1000),
      valueAt('a', '2026-01-02T00:00:00Z', 1000),
    ];
    for (const order of [values, values.toReversed()])
      expect(parsePool(order).keys.map((key) => key.id)).toEqual(['c', 'a', 'b']);
  });

  it('keeps the newest value of a duplicate id, and lists the superseded one', () => {
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

  it('lists unreadable values unchanged', () => {
    const good = valueAt('a', '2026-01-01T00:00:00Z', 1000);
    const noise = ['typed by hand ', '{"v":1}', 'null', '[]', '"text"', '{', good.replace('"v":1', '"v":9')];
    const pool = parsePool([noise[0] ?? '', good, ...noise.slice(1)]);
    expect(pool.keys.map((key) => key.value)).toEqual([good]);
    expect(pool.unreadable).toEqual(noise);
  });

  it('lists a key with a damaged token, so that its owner can see and delete it', () => {
    const value = JSON.stringify({ ...JSON.parse(encryptKey(keyring, newKey)), token: 'damaged' });
    expect(stored(value)).toMatchObject({ id: newKey.id, updatedAt: newKey.createdAt });
  });
});

describe('the mask of a key', () => {
  it.each<[Provider, string, string]>([
    [openai, `sk-proj-${'a1B2'.repeat(6)}`, 'sk-…a1B2'],
    [openrouter, `sk-or-v1-${'0'.repeat(32)}`, 'sk-or-v1-…0000'],
    [custom, 'abcdefghijklmnop', '…mnop'],
    [custom, 'abcdefghijklmno', '…'],
    [custom, '', '…'],
  ])(
    'shows the public prefix and the last four characters, and nothing of a short key (%#)',
    (provider, key, preview) => {
      expect(maskKey(provider, key)).toBe(preview);
    },
  );
});
