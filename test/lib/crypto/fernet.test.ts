import { execFileSync } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { z } from 'zod';
import {
  findFernetTime,
  decryptFernet,
  parseFernetKey,
  encryptFernet,
} from '../../../src/lib/crypto/fernet.ts';

function vectors<T>(name: string, schema: z.ZodType<T>): T {
  return schema.parse(
    JSON.parse(readFileSync(new URL(`fernet-vectors/${name}.json`, import.meta.url), 'utf8')),
  );
}

const Generate = z.array(
  z.object({
    token: z.string(),
    now: z.string(),
    iv: z.array(z.number()),
    src: z.string(),
    secret: z.string(),
  }),
);
const Verify = z.array(
  z.object({
    token: z.string(),
    now: z.string(),
    ttl_sec: z.number(),
    src: z.string(),
    secret: z.string(),
  }),
);
const Invalid = z.array(
  z.object({ desc: z.string(), token: z.string(), now: z.string(), ttl_sec: z.number(), secret: z.string() }),
);
const Tokens = z.object({
  key: z.string(),
  tokens: z.array(z.object({ text: z.string(), token: z.string() })),
});
const Recorded = z.object({ python: Tokens, ours: Tokens });

const randomKey = () => parseFernetKey(randomKeyText());
const randomKeyText = () => randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_');

describe("Fernet's published test vectors", () => {
  it.each(vectors('generate', Generate))('creates the published token of "$src"', (vector) => {
    const given = { timeMs: Date.parse(vector.now), iv: Buffer.from(vector.iv) };
    const token = encryptFernet(parseFernetKey(vector.secret), Buffer.from(vector.src), given);
    expect(token).toBe(vector.token);
    expect(findFernetTime(token)?.getTime()).toBe(Date.parse(vector.now));
  });

  it.each(vectors('verify', Verify))('decrypts the published token of "$src"', (vector) => {
    const limit = { ttlS: vector.ttl_sec, nowMs: Date.parse(vector.now) };
    expect(decryptFernet(parseFernetKey(vector.secret), vector.token, limit)?.toString()).toBe(vector.src);
  });

  it.each(vectors('invalid', Invalid))('refuses the published invalid token: $desc', (vector) => {
    const limit = { ttlS: vector.ttl_sec, nowMs: Date.parse(vector.now) };
    expect(decryptFernet(parseFernetKey(vector.secret), vector.token, limit)).toBeUndefined();
  });

  it('checks the age only if a limit is given', () => {
    const aged = vectors('invalid', Invalid).filter((vector) => /TTL|TS/.test(vector.desc));
    expect(aged).toHaveLength(2);
    for (const vector of aged)
      expect(decryptFernet(parseFernetKey(vector.secret), vector.token)?.toString()).toBe('');
  });
});

describe('recorded Fernet tokens of two implementations', () => {
  const recorded = vectors('recorded', Recorded);
  it.each([
    ["Python's cryptography", recorded.python],
    ['our own, earlier', recorded.ours],
  ])('decrypts those of %s', (_name, set) => {
    const key = parseFernetKey(set.key);
    expect(set.tokens.length).toBeGreaterThan(5);
    for (const { text, token } of set.tokens) expect(decryptFernet(key, token)?.toString()).toBe(text);
  });
});

describe("compatibility with Python's cryptography", () => {
  const python = process.env['OPS_TEST_PYTHON'];
  const texts = ['', 'hello', 'exactly 16 bytes', 'Grüße, 日本語, 🔑', 'x'.repeat(2000), '\u0000\n"'];
  function run(program: string, input: unknown): unknown {
    const output = execFileSync(String(python), ['-c', program], { input: JSON.stringify(input) });
    return JSON.parse(output.toString());
  }

  if (python === undefined && process.env['CI'] !== 'true') {
    process.stderr.write('Skipped: compatibility of Fernet with Python. Set OPS_TEST_PYTHON to run it.\n');
    it.skip('SKIPPED: set OPS_TEST_PYTHON to a Python that has the package `cryptography`', () => undefined);
    return;
  }

  it('has a Python to compare with (OPS_TEST_PYTHON)', () => {
    expect(python).toBeDefined();
  });

  it('creates tokens that Python decrypts', () => {
    const text = randomKeyText();
    const tokens = texts.map((plain) => encryptFernet(parseFernetKey(text), Buffer.from(plain)));
    const decrypted = run(
      'import json,sys\nfrom cryptography.fernet import Fernet\nd=json.load(sys.stdin)\n' +
        "print(json.dumps([Fernet(d['key']).decrypt(t, ttl=60).decode() for t in d['tokens']]))",
      { key: text, tokens },
    );
    expect(decrypted).toEqual(texts);
  });

  it('decrypts tokens that Python creates', () => {
    const text = randomKeyText();
    const tokens = run(
      'import json,sys\nfrom cryptography.fernet import Fernet\nd=json.load(sys.stdin)\n' +
        "print(json.dumps([Fernet(d['key']).encrypt(t.encode()).decode() for t in d['texts']]))",
      { key: text, texts },
    );
    const key = parseFernetKey(text);
    const limit = { ttlS: 60, nowMs: Date.now() };
    const decrypted = z
      .array(z.string())
      .parse(tokens)
      .map((token) => decryptFernet(key, token, limit)?.toString());
    expect(decrypted).toEqual(texts);
  });
});

describe('a Fernet token', () => {
  it('decrypts to the same text with its key, and not with another key', () => {
    const [key, other] = [randomKey(), randomKey()];
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const token = encryptFernet(key, Buffer.from(text));
        expect(decryptFernet(key, token)?.toString()).toBe(Buffer.from(text).toString());
        expect(decryptFernet(other, token)).toBeUndefined();
      }),
    );
  });

  it('is refused after a change of any single character', () => {
    const key = randomKey();
    const token = encryptFernet(key, Buffer.from('demo-0123456789abcdef'));
    for (let at = 0; at < token.length; at += 1) {
      const changed = token.slice(0, at) + (token[at] === 'A' ? 'B' : 'A') + token.slice(at + 1);
      expect(decryptFernet(key, changed)).toBeUndefined();
    }
  });

  it('has one spelling: missing padding, blanks, another alphabet and extra bits are refused', () => {
    const key = randomKey();
    const token = encryptFernet(key, Buffer.from('0123456789abcdef'));
    expect(token).toMatch(/=$/);
    const spellings = [token.replace(/=+$/, ''), `${token}=`, ` ${token}`, `${token}\n`, ''];
    spellings.push(Buffer.from(token.replace(/=+$/, ''), 'base64url').toString('base64') + '+/');
    for (const spelling of spellings) expect(decryptFernet(key, spelling)).toBeUndefined();
  });

  it('is refused for another version byte under a valid signature', () => {
    const key = randomKey();
    const bytes = Buffer.from(encryptFernet(key, Buffer.from('hello')), 'base64url');
    const signed = Buffer.concat([Buffer.from([0x81]), bytes.subarray(1, -32)]);
    const mac = createHmac('sha256', key.signing).update(signed).digest();
    const token = Buffer.concat([signed, mac]).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
    expect(decryptFernet(key, token)).toBeUndefined();
    expect(findFernetTime(token)).toBeUndefined();
  });

  it('shows its time without a key; a text that is not a token has none', () => {
    const timeMs = Date.UTC(2026, 1, 3, 4, 5, 6);
    const token = encryptFernet(randomKey(), Buffer.from('x'), { timeMs: timeMs + 999, iv: randomBytes(16) });
    expect(findFernetTime(token)?.getTime()).toBe(timeMs);
    for (const text of ['', 'gAAA', 'no token', `gP____________${'A'.repeat(90)}`])
      expect(findFernetTime(text)).toBeUndefined();
  });
});

describe('a Fernet key', () => {
  it('must be 32 bytes in URL-safe base64; the error does not contain the key', () => {
    const bad = ['', 'short', 'A'.repeat(43), `${'+'.repeat(43)}=`, 'A'.repeat(44), `${'_'.repeat(43)}=`];
    for (const text of bad) {
      expect(() => parseFernetKey(text)).toThrow('A Fernet key is 32 bytes');
      if (text !== '') expect(() => parseFernetKey(text)).not.toThrow(text);
    }
  });
});
