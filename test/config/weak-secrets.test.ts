import { createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { describe, expect, it } from '@jest/globals';
import { readConfig, type Environment } from '../../src/config/config.ts';
import { findFernetKeyWeakness, findTextSecretWeakness } from '../../src/config/weak-secrets.ts';

const fernetKey = (bytes: Buffer) => `${bytes.toString('base64url')}=`;
const randomKey = () => fernetKey(randomBytes(32));
const randomText = () => randomBytes(32).toString('base64url');

function deployed(changes: Environment): Environment {
  return {
    DEPLOY_ENV: 'production',
    DATABASE_URL: 'postgres://app@127.0.0.1:5433/ops_center',
    PUBLIC_URL: 'https://ops.example.com',
    KEYCLOAK_URL: 'https://login.example.com',
    KEYCLOAK_VAULT_REALM: 'ops-center-vault',
    ENCRYPTION_KEY: randomKey(),
    SESSION_SECRET: randomText(),
    KEYCLOAK_WEB_CLIENT_SECRET: randomText(),
    KEYCLOAK_SERVICE_CLIENT_SECRET: randomText(),
    KEYCLOAK_VAULT_CLIENT_SECRET: randomText(),
    ...changes,
  };
}

function read(environment: Environment) {
  return readConfig(environment, () => {
    throw new Error('no file');
  });
}

const WEAK_KEYS: [string, string][] = [
  ['all zero', fernetKey(Buffer.alloc(32))],
  ['one byte', fernetKey(Buffer.alloc(32, 0xff))],
  ['a few bytes', fernetKey(Buffer.alloc(32, Buffer.from([1, 2, 3, 250])))],
  ['a repeated half', fernetKey(Buffer.concat(Array<Buffer>(2).fill(randomBytes(16))))],
  ['a sequence', fernetKey(Buffer.from(Array.from({ length: 32 }, (_, at) => 2 * at)))],
  ['a passphrase', fernetKey(Buffer.from('correct horse battery staple 123'))],
  ['the key of the Fernet specification', 'cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4='],
];

const WEAK_TEXTS: [string, string][] = [
  ['one letter', 'x'.repeat(40)],
  ['few letters', 'abcabdabcabdaabbccddabcdabcdaabb'],
  ['a repeated part', '0123456789abcdefghij'.repeat(2)],
  ['a repeated part, cut', 'q8Zr2Lm5Wn7T'.repeat(3).slice(0, 34)],
  ['a sequence', 'abcdefghijklmnopqrstuvwxyz{|}~!"'],
  ['a placeholder', 'change-me-change-me-1234567890-qwertz'],
  ['a description', 'your-32-character-session-key-of-XYZ'],
  ['a product name', 'ops-center-web-9f8e7d6c5b4a32100f1e2d'],
];

describe('a deployed app refuses', () => {
  it.each(WEAK_KEYS)('an ENCRYPTION_KEY that is %s', (_kind, key) => {
    expect(() => read(deployed({ ENCRYPTION_KEY: key }))).toThrow(/ENCRYPTION_KEY can be guessed: it /);
    expect(() => read(deployed({ ENCRYPTION_KEY: key }))).not.toThrow(key);
  });

  it.each(
    [
      'SESSION_SECRET',
      'KEYCLOAK_WEB_CLIENT_SECRET',
      'KEYCLOAK_SERVICE_CLIENT_SECRET',
      'KEYCLOAK_VAULT_CLIENT_SECRET',
    ].flatMap((name) => WEAK_TEXTS.map(([kind, text]): [string, string, string] => [name, kind, text])),
  )('a %s that is %s', (name, _kind, text) => {
    expect(() => read(deployed({ [name]: text }))).toThrow(new RegExp(`${name} can be guessed: it `));
    expect(() => read(deployed({ [name]: text }))).not.toThrow(text);
  });

  it.each(['SESSION_SECRET', 'KEYCLOAK_WEB_CLIENT_SECRET'])('a %s of 31 characters', (name) => {
    const text = randomText().slice(0, 31);
    expect(() => read(deployed({ [name]: text }))).toThrow(`${name} must have 32 characters or more`);
  });
});

it('a deployed app decrypts with a weak key after a strong one, so that it can be rotated away', () => {
  const weak = fernetKey(Buffer.alloc(32));
  expect(read(deployed({ ENCRYPTION_KEY: `${randomKey()},${weak}` })).encryptionKeys).toHaveLength(2);
});

it('local mode accepts any secret of the right form', () => {
  const weak = { ENCRYPTION_KEY: fernetKey(Buffer.alloc(32)), SESSION_SECRET: 'x'.repeat(32) };
  const { DEPLOY_ENV: _unset, PUBLIC_URL: _default, ...local } = deployed(weak);
  expect(read({ ...local, KEYCLOAK_URL: 'http://localhost:8080' }).mode).toBe('local');
});

it('random values of every usual form are accepted', () => {
  for (let round = 0; round < 2_000; round += 1) {
    // The same values in every run.
    const bytes = createHash('sha256').update(`random ${round}`).digest();
    const hex = bytes.toString('hex');
    const uuid = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
    const texts = [
      bytes.toString('base64url'),
      bytes.subarray(0, 24).toString('base64'),
      hex.slice(0, 32),
      uuid,
    ];
    expect(texts.map(findTextSecretWeakness)).toEqual(texts.map(() => undefined));
    expect(findFernetKeyWeakness(fernetKey(bytes))).toBeUndefined();
  }
});

it('no Fernet key in the documentation is accepted', async () => {
  const files = ['README.md', '.env.example', 'docs/operations.md', 'docs/security.md', 'docker-compose.yml'];
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8')));
  const keys = texts.join('\n').match(/\b[A-Za-z0-9_-]{43}=/g) ?? [];
  expect(keys.filter((key) => findFernetKeyWeakness(key) === undefined)).toEqual([]);
});
