import { describe, expect, it } from '@jest/globals';
import type { Request } from 'express';
import { listCookies, listCookieValues } from '../../src/http/cookies.ts';

const withCookie = (cookie?: string) => ({ headers: { cookie } }) as unknown as Request;

describe('reading cookies', () => {
  it('returns every value of a name, so that an injected second cookie is detected', () => {
    expect(listCookieValues(withCookie('session=a; other=b; session=c'), 'session')).toEqual(['a', 'c']);
  });

  it('matches complete names only', () => {
    expect(listCookieValues(withCookie('session-login-x=1; xsession=2; a=session=3'), 'session')).toEqual([]);
  });

  it('keeps equal signs in a value', () => {
    expect(listCookies(withCookie('token=gAAAA=='))).toEqual([['token', 'gAAAA==']]);
  });

  it('returns nothing without the header', () => {
    expect(listCookies(withCookie())).toEqual([]);
  });
});
