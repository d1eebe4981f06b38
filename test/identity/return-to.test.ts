import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { safeReturnTo } from '../../src/identity/return-to.ts';

const OWN = 'https://ops.example';

describe('where to go after signing in', () => {
  it.each([
    ['/', '/'],
    ['/keys?provider=openai#add', '/keys?provider=openai#add'],
    ['keys', '/keys'],
    [`${OWN}/keys`, '/keys'],
    ['/a/../b', '/b'],
    ['/%20x', '/%20x'],
    // With our own scheme and no slashes it is a relative address.
    ['https:evil.example', '/evil.example'],
  ])('%s is ours', (wanted, path) => {
    expect(safeReturnTo(wanted, OWN)).toBe(OWN + path);
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
  ])('%s becomes the start page', (wanted) => {
    expect(safeReturnTo(wanted, OWN)).toBe(`${OWN}/`);
  });

  it('never leaves our origin, whatever is asked for', () => {
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
      fc.property(text, (wanted) => {
        const result = new URL(safeReturnTo(wanted, OWN));
        expect(result.origin).toBe(OWN);
        expect(result.pathname.startsWith('//')).toBe(false);
        expect(result.username).toBe('');
      }),
      { numRuns: 2_000 },
    );
  });
});
