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
