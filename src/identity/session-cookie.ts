import { createHmac, createSecretKey, timingSafeEqual } from 'node:crypto';
import type { Request } from 'express';
import { listCookies, listCookieValues } from '../http/cookies.ts';

/** The cookie that names a session: `s:<id>.<signature>`, in the format of express-session. */
export interface SessionCookie {
  /** The ids of all sessions that the request names by a cookie of this installation, without duplicates. */
  listSessionIds(request: Request): string[];
  /** Removes all other cookies of the name from the request's header. */
  keepOnly(request: Request, sessionId: string | undefined): void;
}

/**
 * A browser sends several cookies of one name, in an order that a sibling host or another application on `localhost` can
 * choose. Cookies that this installation has not signed are ignored.
 */
export function createSessionCookie(name: string, secret: string): SessionCookie {
  const key = createSecretKey(secret, 'utf8');

  /** @returns undefined for a value that is not signed with the secret. */
  function findSessionId(value: string): string | undefined {
    const [, id, signature] = /^s:(.+)\.([^.]*)$/.exec(decode(value)) ?? [];
    if (id === undefined || signature === undefined) return undefined;
    const given = Buffer.from(signature, 'base64');
    const expected = createHmac('sha256', key).update(id).digest();
    return given.length === expected.length && timingSafeEqual(given, expected) ? id : undefined;
  }

  function listSessionIds(request: Request): string[] {
    const ids = listCookieValues(request, name).map(findSessionId);
    return [...new Set(ids.filter((id) => id !== undefined))];
  }

  return {
    listSessionIds,
    keepOnly(request, sessionId) {
      const kept = listCookies(request).filter(
        ([cookieName, value]) =>
          cookieName !== name || (sessionId !== undefined && findSessionId(value) === sessionId),
      );
      request.headers.cookie = kept.map((pair) => pair.join('=')).join('; ');
    },
  };
}

function decode(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return '';
  }
}
