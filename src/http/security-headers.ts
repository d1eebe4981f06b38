import type { NextFunction, Request, Response } from 'express';

/** A year, the value that preload lists ask for. */
const STRICT_TRANSPORT = 'max-age=31536000; includeSubDomains';

/**
 * Creates the middleware that sets the headers of all responses; pages replace some of them. When a browser displays
 * an upstream's response, it must not execute it, store it or expose it to another site.
 * @param publicUrl with https, every response says that browsers must use https from now on. The first response to a
 *   browser may be any: a redirect, an error, an answer of the API.
 */
export function createSecurityHeaders(publicUrl: string) {
  const isEncrypted = publicUrl.startsWith('https:');
  return (_request: Request, response: Response, next: NextFunction): void => {
    response.setHeader('x-content-type-options', 'nosniff');
    response.setHeader('cache-control', 'no-store');
    response.setHeader('content-security-policy', "default-src 'none'; sandbox");
    response.setHeader('referrer-policy', 'no-referrer');
    if (isEncrypted) response.setHeader('strict-transport-security', STRICT_TRANSPORT);
    next();
  };
}
