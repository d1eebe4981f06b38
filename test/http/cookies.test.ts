import { describe, expect, it } from '@jest/globals';
import type { Request } from 'express';
import { listCookies, listCookieValues } from '../../src/http/cookies.ts';

const withCookie = (cookie?: string) => ({ headers: { cookie } }) as unknown as Request;

describe('reading cookies', () => {
  it('finds every value of a name, so that a planted second one shows', () => {
    expect(listCookieValues(withCookie('session=a; other=b; session=c'), 'session')).toEqual(['a', 'c']);
  });

  it('takes names whole: neither longer names nor values count', () => {
    expect(listCookieValues(withCookie('session-login-x=1; xsession=2; a=session=3'), 'session')).toEqual([]);
  });

  it('keeps equal signs within a value', () => {
    expect(listCookies(withCookie('token=gAAAA=='))).toEqual([['token', 'gAAAA==']]);
  });

  it('finds nothing without the header', () => {
    expect(listCookies(withCookie())).toEqual([]);
  });
});
