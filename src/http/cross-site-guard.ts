import type { Request } from 'express';
import { AppError } from '../lib/errors.ts';

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS']);

/**
 * Creates the guard against forged writes (docs/api.md, "CSRF"). It refuses an unsafe request with a session cookie
 * when the browser reports another site as its source. Clients that send neither header pass.
 * @returns function that throws AppError `csrf` (403).
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
