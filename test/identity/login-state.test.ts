import { describe, expect, it } from '@jest/globals';
import type { CookieOptions, Request, Response } from 'express';
import { createLoginStates } from '../../src/identity/login-state.ts';

/** Cookies of a browser, written and read like Express does. */
function browser() {
  const cookies = new Map<string, string>();
  const options = new Map<string, CookieOptions>();
  const response = {
    cookie(name: string, value: string, cookieOptions: CookieOptions) {
      cookies.set(name, value);
      options.set(name, cookieOptions);
    },
    clearCookie: (name: string) => cookies.delete(name),
  } as unknown as Response;
  const request = () =>
    ({
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
    }) as unknown as Request;
  return { cookies, options, response, request };
}

function setUp(sessionSecret = 's'.repeat(32)) {
  const clock = { ms: 1_000_000 };
  const states = createLoginStates({
    sessionSecret,
    cookieName: 'session',
    secure: true,
    now: () => clock.ms,
  });
  return { states, clock };
}

const login = (state: string) => ({ state, nonce: 'nonce-1', pkceVerifier: 'verifier-1', returnTo: '/x' });
const STATE = 'state-of-forty-three-characters-as-they-are';

describe('login state', () => {
  it('is returned once, for its own state', () => {
    const { states } = setUp();
    const { request, response } = browser();
    states.save(request(), response, login(STATE));
    expect(states.consume(request(), response, STATE)).toMatchObject(login(STATE));
    expect(states.consume(request(), response, STATE)).toBeUndefined();
  });

  it('is stored encrypted in an HttpOnly, Secure, SameSite=Lax cookie for 10 minutes', () => {
    const { states } = setUp();
    const { cookies, options, request, response } = browser();
    states.save(request(), response, login(STATE));
    const [[name, value] = ['', '']] = cookies;
    expect(options.get(name)).toMatchObject({
      httpOnly: true,
      secure: true,
      sameSite: 'lax',
      maxAge: 600_000,
    });
    expect(Buffer.from(value, 'base64url').toString('latin1')).not.toContain('verifier-1');
    expect(value).not.toContain('verifier-1');
  });

  it('expires after 10 minutes, even if the browser still sends the cookie', () => {
    const { states, clock } = setUp();
    const { request, response } = browser();
    states.save(request(), response, login(STATE));
    clock.ms += 600_000;
    expect(states.consume(request(), response, STATE)).toBeUndefined();
  });

  it('is not returned for another state with the same cookie name', () => {
    const { states } = setUp();
    const { request, response } = browser();
    states.save(request(), response, login(STATE));
    expect(states.consume(request(), response, `${STATE.slice(0, 12)}-and-then-another`)).toBeUndefined();
  });

  it('is not returned if it was created with another secret or altered', () => {
    const other = setUp('o'.repeat(32));
    const { states } = setUp();
    const { cookies, request, response } = browser();
    other.states.save(request(), response, login(STATE));
    expect(states.consume(request(), response, STATE)).toBeUndefined();
    states.save(request(), response, login(STATE));
    for (const [name, value] of cookies) cookies.set(name, value.slice(0, 40) + 'A' + value.slice(41));
    expect(states.consume(request(), response, STATE)).toBeUndefined();
  });

  it('keeps the newest eight pending sign-ins, so that the header stays small', () => {
    const { states, clock } = setUp();
    const { cookies, request, response } = browser();
    for (let number = 10; number < 30; number += 1) {
      clock.ms += 1_000;
      states.save(request(), response, login(`${String(number)}-${STATE}`));
    }
    expect(cookies.size).toBe(8);
    expect(states.consume(request(), response, `29-${STATE}`)).toBeDefined();
    expect(states.consume(request(), response, `21-${STATE}`)).toBeUndefined();
    expect(request().headers.cookie?.length).toBeLessThan(8_000);
  });
});
