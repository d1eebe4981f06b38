import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { safeReturnTo } from '../../src/identity/sign-in.ts';

const ORIGIN = 'https://ops.example';

describe('the return address of a sign-in', () => {
  it.each([
    ['/', '/'],
    ['/keys?provider=openai#add', '/keys?provider=openai#add'],
    ['keys', '/keys'],
    [`${ORIGIN}/keys`, '/keys'],
    ['/a/../b', '/b'],
    ['/%20x', '/%20x'],
    // With the same scheme and no slashes, it is a relative address.
    ['https:evil.example', '/evil.example'],
  ])('accepts %s', (requested, path) => {
    expect(safeReturnTo(requested, ORIGIN)).toBe(ORIGIN + path);
  });

  it.each([
    '//evil.example',
    '///evil.example',
    '/\\evil.example',
    '\\\\evil.example',
    '/\t/evil.example',
    '/\n/evil.example',
    '\u0000//evil.example',
    '/%09/evil.example',
    '/%0a/evil.example',
    '/%5cevil.example',
    '/.//evil.example',
    '/x/..//evil.example',
    'https://evil.example/',
    'https://ops.example@evil.example/',
    'https://user@ops.example/',
    'https://ops.example.evil.example/',
    'http://ops.example/',
    'https://ops.example:8443/',
    'javascript:alert(1)',
    'data:text/html,x',
    `/${'a'.repeat(2_000)}`,
    undefined,
    ['/a', '/b'],
    42,
  ])('replaces %s by the home page', (requested) => {
    expect(safeReturnTo(requested, ORIGIN)).toBe(`${ORIGIN}/`);
  });

  it('never returns an address of another origin', () => {
    const piece = fc.constantFrom(
      '/',
      '\\',
      '.',
      '..',
      '@',
      ':',
      '//',
      '%09',
      '%2f',
      '\t',
      'evil.example',
      'https',
      '?',
      '#',
    );
    const text = fc
      .array(fc.oneof(piece, fc.string({ maxLength: 4 })), { maxLength: 8 })
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(text, (requested) => {
        const result = new URL(safeReturnTo(requested, ORIGIN));
        expect(result.origin).toBe(ORIGIN);
        expect(result.pathname.startsWith('//')).toBe(false);
        expect(result.username).toBe('');
      }),
      { numRuns: 2_000 },
    );
  });
});
