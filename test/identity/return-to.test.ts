import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { LoginQuery } from '../../src/identity/schema.ts';

const ORIGIN = 'https://ops.example';
const parse = (returnTo: unknown) => LoginQuery.safeParse({ return_to: returnTo });

describe('the return address of a sign-in', () => {
  it.each([
    ['/', '/'],
    ['/keys?provider=openai#add', '/keys?provider=openai#add'],
    ['/a/../b', '/b'],
    ['/%20x', '/%20x'],
    ['/x?next=//evil.example', '/x?next=//evil.example'],
    [undefined, '/'],
  ])('accepts %s', (requested, path) => {
    expect(parse(requested).data?.return_to).toBe(path);
  });

  it.each([
    ...['blob', 'filesystem', 'view-source', 'ws', 'ftp', 'file', 'intent'].map(
      (scheme) => `${scheme}:${ORIGIN}/x`,
    ),
    '',
    'keys',
    ` /keys`,
    `${ORIGIN}/keys`,
    '//evil.example',
    '//ops.example/keys',
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
    'https:evil.example',
    'https://evil.example/',
    'https://user@ops.example/',
    'javascript:alert(1)',
    'data:text/html,x',
    'about:blank',
    `/${'a'.repeat(2_000)}`,
    ['/a', '/b'],
    42,
  ])('refuses %s', (requested) => {
    expect(parse(requested).error?.issues[0]?.path).toEqual(['return_to']);
  });

  it('never leads to another origin', () => {
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
      .map((parts) => `/${parts.join('')}`);
    fc.assert(
      fc.property(text, (requested) => {
        const path = parse(requested).data?.return_to;
        if (path === undefined) return;
        // As a browser resolves the redirect, and as a page would resolve the path alone.
        for (const result of [new URL(ORIGIN + path), new URL(path, ORIGIN)]) {
          expect(result.origin).toBe(ORIGIN);
          expect(result.pathname.startsWith('//')).toBe(false);
          expect(result.username).toBe('');
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('max_age of a sign-in', () => {
  it.each([
    ['0', 0],
    ['900', 900],
    [undefined, undefined],
  ])('accepts %s', (requested, seconds) => {
    expect(LoginQuery.parse({ max_age: requested }).max_age).toBe(seconds);
  });

  it.each(['', '-1', '1.5', '9e2', '100000', ' 1', ['1', '2']])('refuses %s', (requested) => {
    expect(LoginQuery.safeParse({ max_age: requested }).error?.issues[0]?.path).toEqual(['max_age']);
  });
});
