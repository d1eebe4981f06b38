import type { Request } from 'express';

/** All values of a cookie, undecoded and in order. A browser can send several cookies of the same name. */
export function listCookieValues(request: Request, name: string): string[] {
  return listCookies(request).flatMap(([cookieName, value]) => (cookieName === name ? [value] : []));
}

/** Names and values of all cookies of a request, undecoded (RFC 6265, section 4.2.1). */
export function listCookies(request: Request): [name: string, value: string][] {
  const header = request.headers.cookie ?? '';
  return header.split(';').flatMap((pair): [string, string][] => {
    const at = pair.indexOf('=');
    return at < 0 ? [] : [[pair.slice(0, at).trim(), pair.slice(at + 1).trim()]];
  });
}
