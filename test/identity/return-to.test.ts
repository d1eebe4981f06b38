import { describe, expect, it } from '@jest/globals';
import { safeReturnTo } from '../../src/identity/sign-in.ts';

describe.each(['https://ops.example.com', 'http://localhost:3000'])('return_to on %s', (publicUrl) => {
  const { host, protocol } = new URL(publicUrl);
  const other = protocol === 'https:' ? 'http:' : 'https:';

  it.each([
    ['/', `${publicUrl}/`],
    ['/keys?a=1#b', `${publicUrl}/keys?a=1#b`],
    ['keys', `${publicUrl}/keys`],
    [`${publicUrl}/keys`, `${publicUrl}/keys`],
    [`//${host}/keys`, `${publicUrl}/keys`],
  ])('keeps %s', (requested, expected) => {
    expect(safeReturnTo(requested, publicUrl)).toBe(expected);
  });

  it.each([
    ...['blob', 'filesystem', 'view-source', 'ws', 'wss', 'ftp', 'file', 'jar', 'intent'].map(
      (scheme) => `${scheme}:${publicUrl}/x`,
    ),
    `BLOB:${publicUrl}/x`,
    ` blob:${publicUrl}/x`,
    `ws://${host}/x`,
    `wss://${host}/x`,
    `ftp://${host}/x`,
    `${other}//${host}/x`,
    `data:text/html,<script>alert(1)</script>`,
    'javascript:alert(1)',
    `javascript://${host}/%0aalert(1)`,
    'about:blank',
    'mailto:a@example.com',
    `https://${host}.evil.example/`,
    `https://evil.example/${host}`,
    `${publicUrl}@evil.example/`,
    `${protocol}//user@${host}/`,
    '//evil.example/x',
    '/.//evil.example',
    '/\\evil.example',
    undefined,
    ['/x'],
  ])('replaces %s by the home page', (requested) => {
    expect(safeReturnTo(requested, publicUrl)).toBe(`${publicUrl}/`);
  });
});
