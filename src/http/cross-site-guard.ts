import type { Request } from 'express';
import { AppError } from '../lib/errors.ts';

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS']);

/**
 * Builds the check against forged writes (docs/api.md, "CSRF"): an unsafe request on the session cookie is
 * refused when the browser says that another site sent it. Programs that send neither header pass.
 * @returns a function that throws AppError `csrf` (403).
 */
export function createCrossSiteGuard(publicUrl: string): (request: Request) => void {
  const publicOrigin = new URL(publicUrl).origin;
  return (request) => {
    if (SAFE_METHODS.has(request.method)) return;
    const site = request.headers['sec-fetch-site'];
    const origin = request.headers.origin;
    const isCrossSite = site !== undefined && site !== 'same-origin' && site !== 'none';
    if (isCrossSite || (origin !== undefined && origin !== publicOrigin)) {
      throw new AppError('csrf', 'This request came from another site.');
    }
  };
}
