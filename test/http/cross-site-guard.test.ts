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

describe('the cross-site check', () => {
  it.each([
    ['no header of a browser at all', {}],
    ['a page of our own', { 'sec-fetch-site': 'same-origin', origin: 'https://ops.example' }],
    ['an address that the user typed', { 'sec-fetch-site': 'none' }],
    ['an old browser that sends our origin alone', { origin: 'https://ops.example' }],
  ])('lets a write through that has %s', (_name, headers) => {
    expect(send('POST', headers)).toBe('passes');
  });

  it.each([
    ['another site', { 'sec-fetch-site': 'cross-site' }],
    ['a neighbouring host', { 'sec-fetch-site': 'same-site', origin: 'https://ops.example' }],
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

  it('lets reading through from anywhere', () => {
    for (const method of ['GET', 'HEAD', 'OPTIONS'])
      expect(send(method, { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' })).toBe('passes');
  });
});
