import { describe, expect, it } from '@jest/globals';
import { createRedactor, redactJson } from '../../src/lib/redact.ts';

describe('createRedactor', () => {
  const secret = 'sk-"quoted"/+key\\with ü';

  it.each([
    ['raw', secret],
    ['JSON', JSON.stringify(secret)],
    ['base64', Buffer.from(secret).toString('base64')],
    ['base64url', Buffer.from(secret).toString('base64url')],
    ['percent', encodeURIComponent(secret)],
  ])('removes a secret in %s form', (_form, text) => {
    const cleaned = createRedactor([secret])(`before ${text} after`);
    expect(cleaned).toMatch(/^before .*\*\*\*.* after$/);
    expect(cleaned).not.toContain(text.replace(/^"|"$|=+$/g, ''));
  });

  it('does not change other text, nor text with a value that is too short for a secret', () => {
    expect(createRedactor(['', 'ab', secret])('abc and what else')).toBe('abc and what else');
  });
});

/** All characters of the text as escapes of one kind. */
const escapeAll = (text: string, toEscape: (code: number) => string) =>
  Array.from(text, (character) => toEscape(character.charCodeAt(0))).join('');
const hex = (code: number, digits: number) => code.toString(16).padStart(digits, '0');

describe('createRedactor on escaped secrets', () => {
  const secret = 'sk-or+v1/abc=DEF&0%25';
  const unicode = (text: string) => escapeAll(text, (code) => `\\u${hex(code, 4)}`);
  const percent = (text: string) => escapeAll(text, (code) => `%${hex(code, 2)}`);

  it.each<[string, string]>([
    ['a solidus', secret.replaceAll('/', '\\/')],
    ['one character', secret.replace('+', '\\u002B')],
    ['one character in lower case', secret.replace('+', '\\u002b')],
    ['all characters', unicode(secret)],
    ['all bytes', escapeAll(secret, (code) => `\\x${hex(code, 2)}`)],
    ['JSON in a string of JSON', JSON.stringify(unicode(secret))],
    ['an escaped backslash', secret.replace('+', '\\u005cu002b')],
    ['percent in lower case', secret.replace(/[+/=&%]/g, (character) => percent(character))],
    ['percent for all characters', percent(secret)],
    ['percent in JSON', unicode(percent(secret))],
    ['decimal entities', escapeAll(secret, (code) => `&#${code};`)],
    ['hexadecimal entities', escapeAll(secret, (code) => `&#x${hex(code, 2)};`)],
    ['named entities', secret.replaceAll('&', '&amp;')],
    ['base64 after one more byte', Buffer.from(`:${secret}.`).toString('base64')],
    ['base64 of an authorization', Buffer.from(`Bearer ${secret}\n`).toString('base64')],
    ['base64 with escapes', unicode(Buffer.from(secret).toString('base64'))],
  ])('removes a secret with %s', (_name, text) => {
    const redacted = createRedactor([secret])(`before ${text} after`);
    expect(redacted).toMatch(/^before \S*\*\*\*\S* after$/);
  });

  it('replaces text that hides the secret in two ways', () => {
    const text = `${unicode(secret)} ${percent(percent(secret))}`;
    expect(createRedactor([secret])(text)).toBe('***');
  });

  it('replaces text with escapes that is too long to be decoded', () => {
    const redact = createRedactor([secret]);
    const long = 'x'.repeat(100_000);
    expect(redact(`${long}\\u0041`)).toBe('***');
    expect(redact(`${long}${secret}`)).toBe(`${long}***`);
  });

  it('does not change escapes in text without a secret', () => {
    const text = '{"a":"\\u0041\\/ %41 &#65; &amp;"}';
    expect(createRedactor([secret])(text)).toBe(text);
  });
});

describe('createRedactor on cut secrets', () => {
  const secret = 'sk-or-v1-0123456789abcdef0123456789abcdefSECRET';
  const start = (length: number) => secret.slice(0, length);
  const hexOf = (text: string) => Buffer.from(text).toString('hex');

  it.each<[string, string]>([
    ['12 characters at the end', start(12)],
    ['12 characters and an ellipsis', `${start(12)}…`],
    ['12 characters and three dots', `${start(12)}...`],
    ['more characters', `${start(40)}...`],
    ['all but the last character', start(secret.length - 1)],
    ['12 characters, dots and the last 4', `${start(12)}...CRET`],
    ['8 characters, stars and the last 4', `${start(8)}****CRET`],
    ['8 characters, many stars and the last 4', `${start(8)}${'*'.repeat(40)}CRET`],
    ['8 characters, dots and the last 4', `${start(8)}...CRET`],
    ['9 characters, bullets and the last 4', `${start(9)}••••CRET`],
    ['9 characters, stars and nothing', `${start(9)}***`],
    ['12 characters in base64', `${Buffer.from(start(12)).toString('base64')}...`],
    ['20 characters in base64', Buffer.from(start(20)).toString('base64')],
    ['hexadecimal form', hexOf(secret)],
    ['hexadecimal form in upper case', hexOf(secret).toUpperCase()],
    ['hexadecimal form with blanks', hexOf(secret).replace(/..(?!$)/g, '$& ')],
    ['hexadecimal form with colons', hexOf(secret).replace(/..(?!$)/g, '$&:')],
    ['hexadecimal form, cut', `${hexOf(start(12))}...`],
    ['escapes', `${escapeAll(start(14), (code) => `\\u${hex(code, 4)}`)}...`],
    ['percent encoding', `${escapeAll(start(14), (code) => `%${hex(code, 2)}`)}...`],
  ])('removes a secret with %s', (_name, text) => {
    for (const around of ['', '"', ' ']) {
      const redacted = createRedactor([secret])(`Incorrect key ${around}${text}${around} (see the docs)`);
      expect(redacted).toBe(`Incorrect key ${around}***${around} (see the docs)`);
    }
  });

  it('says nothing about characters after the first 12, nor about the last 4', () => {
    const redact = createRedactor([secret]);
    for (const rest of ['', secret.slice(12, 20), 'X'.repeat(8), '9', '...CRET', '...XXXX'])
      expect(redact(`model ${start(12)}${rest} unknown`)).toBe('model *** unknown');
    for (const end of ['CRET', 'XXXX']) expect(redact(`${start(8)}****${end}`)).toBe('***');
  });

  it.each([`${start(11)} x`, start(11), `${start(7)}****CRET`, 'sk-or-v1', '****CRET', '...CRET'])(
    'does not change shorter parts: %s',
    (text) => {
      expect(createRedactor([secret])(text)).toBe(text);
    },
  );

  it('takes time linear in the length of the text', () => {
    const redact = createRedactor([secret, 'a'.repeat(64)]);
    const cpuMs = (text: string) => {
      const before = process.cpuUsage();
      redact(text);
      return process.cpuUsage(before).user / 1_000;
    };
    for (const part of [start(8), start(11), `${start(8)}${'a'.repeat(41)}`, 'a', `${start(8)}.`, '*'])
      expect(cpuMs(part.repeat(Math.ceil((256 * 1024) / part.length)))).toBeLessThan(1_000);
  });
});

describe('createRedactor on a secret inside a longer text that is encoded and cut', () => {
  const secret = 'sk-or-v1-Ab3dE5fG7hIj9kLmN0pQrStUvWxYz';

  it.each(['Bearer ', 'user:', 'u', 'ab'])('removes base64 of %j and the secret', (before) => {
    for (const form of ['base64', 'base64url'] as const)
      for (const length of [14, 20, secret.length - 1]) {
        const text = Buffer.from(before + secret.slice(0, length)).toString(form);
        const hidden = createRedactor([secret])(`Invalid header ${text}...`);
        // Four characters belong to three bytes: the first and last ones of the secret share theirs with other text.
        expect(hidden).toMatch(/^Invalid header [\w+/-]{0,11}\*\*\*$/);
      }
  });
});

describe('createRedactor on a secret without its public prefix', () => {
  const random = 'Ab3dE5fG7hIj9kLmN0pQrStUvWxYz';
  const prefixes = [
    'sk-',
    'sk-proj-',
    'sk-or-v1-',
    'sk-ant-api03-',
    'gsk_',
    'hf_',
    'tgp_v1_',
    'pplx-',
    'demo-',
  ];

  it.each(prefixes)('removes it: %s', (prefix) => {
    const redact = createRedactor([prefix + random]);
    const base64 = Buffer.from(random).toString('base64url');
    const forms = [random, `${random.slice(0, 12)}...`, `${random.slice(0, 8)}****`, base64];
    for (const form of forms) expect(redact(`Invalid token: ${form}`)).toBe('Invalid token: ***');
    expect(redact(`Invalid token: ${prefix}${random}.`)).toBe('Invalid token: ***.');
  });

  it('removes it without the first part of its prefix', () => {
    expect(createRedactor([`sk-or-v1-${random}`])(`token or-v1-${random}.`)).toBe('token ***.');
  });

  it.each(['or-v1-Ab3dE5', 'v1-Ab3dE5fG7', 'Ab3dE5fG7hI', 'Ab3dE5fG7hI x', 'b3dE5fG7hIj9'])(
    'does not change shorter parts, by which the secret could be guessed: %s',
    (text) => {
      expect(createRedactor([`sk-or-v1-${random}`])(text)).toBe(text);
    },
  );

  it('does not change text with what is too short for a secret', () => {
    for (const secret of ['my-gateway', 'sk-0123456789a', 'sk-short-0123456789a'])
      expect(createRedactor([secret])('the gateway, 0123456789a')).toBe('the gateway, 0123456789a');
  });
});

describe('redactJson', () => {
  it('redacts strings, member names and numbers at any depth, and nothing else', () => {
    const redact = createRedactor(['123456789', 'the-secret']);
    const value = {
      'a the-secret': [{ b: 'x the-secret' }, 123456789, 1, true, null, 'the'],
      __proto__x: {},
    };
    expect(redactJson(value, redact)).toEqual({
      'a ***': [{ b: 'x ***' }, '***', 1, true, null, 'the'],
      __proto__x: {},
    });
  });
});
