import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Request } from 'express';
import { listCookies, listCookieValues } from '../http/cookies.ts';
import { AppError } from '../lib/errors.ts';

/** The cookie that names a session: `s:<id>.<signature>`, in the format of express-session. */
export interface SessionCookie {
  /** The ids of all sessions that the request names by a cookie of this installation, without duplicates. */
  listSessionIds(request: Request): string[];
  /**
   * Whether the request names a session.
   * @throws AppError `validation_failed` for cookies of two sessions: a sibling host could have set one of them.
   */
  isPresent(request: Request): boolean;
  /** Removes cookies of the name that do not verify from the request's header. */
  dropUnverified(request: Request): void;
}

/**
 * A browser sends several cookies of one name, in an order that a sibling host or another application on `localhost` can
 * choose. Cookies that this installation has not signed are ignored.
 */
export function createSessionCookie(name: string, secret: string): SessionCookie {
  /** @returns undefined for a value that is not signed with the secret. */
  function findSessionId(value: string): string | undefined {
    const [, id, signature] = /^s:(.+)\.([^.]*)$/.exec(decode(value)) ?? [];
    if (id === undefined || signature === undefined) return undefined;
    const given = Buffer.from(signature, 'base64');
    const expected = createHmac('sha256', secret).update(id).digest();
    return given.length === expected.length && timingSafeEqual(given, expected) ? id : undefined;
  }

  function listSessionIds(request: Request): string[] {
    const ids = listCookieValues(request, name).map(findSessionId);
    return [...new Set(ids.filter((id) => id !== undefined))];
  }

  return {
    listSessionIds,
    isPresent(request) {
      const count = listSessionIds(request).length;
      if (count > 1)
        throw new AppError(
          'validation_failed',
          `The request has ${name} cookies of ${count} sessions. Sign out, then sign in again.`,
        );
      return count === 1;
    },
    dropUnverified(request) {
      const kept = listCookies(request).filter(
        ([cookieName, value]) => cookieName !== name || findSessionId(value) !== undefined,
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
