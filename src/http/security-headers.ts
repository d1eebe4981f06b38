import type { NextFunction, Request, Response } from 'express';

/**
 * The headers of everything that is no page. An answer of an upstream that a browser could be brought to
 * show must not run, be stored, or be read by another site.
 */
export function securityHeaders(_request: Request, response: Response, next: NextFunction): void {
  response.setHeader('x-content-type-options', 'nosniff');
  response.setHeader('cache-control', 'no-store');
  response.setHeader('content-security-policy', "default-src 'none'; sandbox");
  response.setHeader('referrer-policy', 'no-referrer');
  next();
}
