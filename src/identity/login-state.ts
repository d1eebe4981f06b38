import { hkdfSync } from 'node:crypto';
import type { CookieOptions, Request, Response } from 'express';
import { z } from 'zod';
import { listCookies } from '../http/cookies.ts';
import { createKeyring } from '../lib/crypto/keyring.ts';

/** State of a pending sign-in, kept until Keycloak redirects the browser back. */
const LoginState = z.object({
  v: z.literal(2),
  state: z.string(),
  nonce: z.string(),
  pkceVerifier: z.string(),
  maxAgeS: z.number().optional(),
  /** A path of this app. */
  returnTo: z.string(),
  /** The app's clock, epoch ms. */
  startedAtMs: z.number(),
});
export type LoginState = z.output<typeof LoginState>;

/** Pending sign-ins of a browser. Stored in encrypted cookies, so that anonymous requests write no rows. */
export interface LoginStates {
  /** Saves a sign-in for 10 minutes. Drops the oldest above 8, so that the cookie header stays small. */
  save(request: Request, response: Response, login: Omit<LoginState, 'v' | 'startedAtMs'>): void;
  /** Returns the sign-in of a `state` and clears its cookie; undefined if it is unknown, altered or expired. */
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
/** Per browser. Each cookie has about 600 bytes; Node allows 16 kB for all headers. */
const MAX_PENDING_SIGN_INS = 8;

/** Uses one cookie per sign-in, so that two tabs can sign in at the same time. */
export function createLoginStates(deps: LoginStateDeps): LoginStates {
  const now = deps.now ?? Date.now;
  const keyring = createKeyring([deriveKey(deps.sessionSecret)]);
  const prefix = `${deps.cookieName}-login-`;
  // The path is `/`, because browsers accept no other for a name that begins with `__Host-`.
  const options: CookieOptions = { httpOnly: true, sameSite: 'lax', path: '/', secure: deps.secure };

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
      const saved: LoginState = { v: 2, ...login, startedAtMs: now() };
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

/** A separate key for this purpose: no other use of the session secret can read or create these cookies. */
function deriveKey(sessionSecret: string): string {
  const bytes = hkdfSync('sha256', sessionSecret, '', 'ops-center pre-login state v1', 32);
  return `${Buffer.from(bytes).toString('base64url')}=`;
}
