import type { NextFunction, Request, Response } from 'express';

/**
 * Sets the headers of all responses except pages. When a browser displays an upstream's response, it must not execute
 * it, store it or expose it to another site.
 */
export function securityHeaders(_request: Request, response: Response, next: NextFunction): void {
  response.setHeader('x-content-type-options', 'nosniff');
  response.setHeader('cache-control', 'no-store');
  response.setHeader('content-security-policy', "default-src 'none'; sandbox");
  response.setHeader('referrer-policy', 'no-referrer');
  next();
}
