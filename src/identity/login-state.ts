import { hkdfSync } from 'node:crypto';
import type { CookieOptions, Request, Response } from 'express';
import { z } from 'zod';
import { listCookies } from '../http/cookies.ts';
import { createKeyring } from '../lib/crypto/keyring.ts';

/** What a sign-in under way must remember until Keycloak sends the browser back. */
const LoginState = z.object({
  v: z.literal(1),
  state: z.string(),
  nonce: z.string(),
  pkceVerifier: z.string(),
  returnTo: z.string(),
  /** Our clock, epoch ms. */
  startedAtMs: z.number(),
});
export type LoginState = z.output<typeof LoginState>;

/** The sign-ins that a browser has under way, kept in encrypted cookies: a stranger cannot make rows. */
export interface LoginStates {
  /** Keeps a sign-in for 10 minutes; the oldest of many are dropped so that the header stays small. */
  save(request: Request, response: Response, login: Omit<LoginState, 'v' | 'startedAtMs'>): void;
  /** Finds the sign-in of a `state` and takes its cookie away; undefined when unknown, altered or too old. */
  consume(request: Request, response: Response, state: string): LoginState | undefined;
}

export interface LoginStateDeps {
  sessionSecret: string;
  cookieName: string;
  /** Whether cookies are Secure: all but local mode. */
  secure: boolean;
  now?: () => number;
}

const LIFETIME_MS = 10 * 60_000;
/** Sign-ins under way per browser: each cookie has about 600 bytes, the whole header at most 16 kB. */
const MAX_PENDING_SIGN_INS = 8;

/** Builds the cookies of pre-login state, one per sign-in so that two tabs do not disturb each other. */
export function createLoginStates(deps: LoginStateDeps): LoginStates {
  const now = deps.now ?? Date.now;
  const keyring = createKeyring([deriveKey(deps.sessionSecret)]);
  const prefix = `${deps.cookieName}-login-`;
  const options: CookieOptions = { httpOnly: true, sameSite: 'lax', path: '/auth', secure: deps.secure };

  function decrypt(ciphertext: string): LoginState | undefined {
    const text = keyring.decrypt(ciphertext);
    const parsed = LoginState.safeParse(text === undefined ? undefined : JSON.parse(text));
    const isUnexpired = parsed.success && now() - parsed.data.startedAtMs < LIFETIME_MS;
    return isUnexpired ? parsed.data : undefined;
  }

  function dropOldest(request: Request, response: Response): void {
    const pending = listCookies(request)
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, value]) => ({ name, startedAtMs: decrypt(value)?.startedAtMs ?? 0 }))
      .sort((a, b) => b.startedAtMs - a.startedAtMs);
    for (const { name } of pending.slice(MAX_PENDING_SIGN_INS - 1)) response.clearCookie(name, options);
  }

  return {
    save(request, response, login) {
      dropOldest(request, response);
      const saved: LoginState = { v: 1, ...login, startedAtMs: now() };
      response.cookie(prefix + toCookieSuffix(login.state), keyring.encrypt(JSON.stringify(saved)), {
        ...options,
        maxAge: LIFETIME_MS,
        encode: String,
      });
    },
    consume(request, response, state) {
      const name = prefix + toCookieSuffix(state);
      const matching = listCookies(request).filter(([candidate]) => candidate === name);
      if (matching.length === 0) return undefined;
      response.clearCookie(name, options);
      return matching.map(([, value]) => decrypt(value)).find((login) => login?.state === state);
    },
  };
}

function toCookieSuffix(state: string): string {
  return state.slice(0, 12).replace(/[^A-Za-z0-9_-]/g, '');
}

/** A key of its own for this purpose, so that no other use of the session secret can read or make these. */
function deriveKey(sessionSecret: string): string {
  const bytes = hkdfSync('sha256', sessionSecret, '', 'ops-center pre-login state v1', 32);
  return `${Buffer.from(bytes).toString('base64url')}=`;
}
