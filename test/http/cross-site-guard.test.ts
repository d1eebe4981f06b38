import { describe, expect, it } from '@jest/globals';
import type { Request } from 'express';
import { createCrossSiteGuard } from '../../src/http/cross-site-guard.ts';

const checkCrossSite = createCrossSiteGuard('https://ops.example/base');

function send(method: string, headers: Record<string, string>): string {
  try {
    checkCrossSite({ method, headers } as unknown as Request);
    return 'passes';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

describe('the cross-site guard', () => {
  it.each([
    ['no browser header', {}],
    ['the headers of our own page', { 'sec-fetch-site': 'same-origin', origin: 'https://ops.example' }],
    ['the header of an address that the user typed', { 'sec-fetch-site': 'none' }],
    ['only our origin, as from an old browser', { origin: 'https://ops.example' }],
  ])('allows a write with %s', (_name, headers) => {
    expect(send('POST', headers)).toBe('passes');
  });

  it.each([
    ['another site', { 'sec-fetch-site': 'cross-site' }],
    ['another host of the same site', { 'sec-fetch-site': 'same-site', origin: 'https://ops.example' }],
    ['another origin', { origin: 'https://evil.example' }],
    ['our host on another port', { origin: 'https://ops.example:8443' }],
    ['our host without TLS', { origin: 'http://ops.example' }],
    ['an opaque origin', { origin: 'null' }],
    [
      'another origin that claims to be the same',
      { 'sec-fetch-site': 'same-origin', origin: 'https://evil.example' },
    ],
  ])('refuses a write from %s', (_name, headers) => {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) expect(send(method, headers)).toBe('csrf');
  });

  it('allows reads from any site', () => {
    for (const method of ['GET', 'HEAD', 'OPTIONS'])
      expect(send(method, { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' })).toBe('passes');
  });
});
