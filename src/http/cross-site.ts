import type { Request } from 'express';
import { AppError } from '../lib/errors.ts';

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS']);

/**
 * Builds the check against forged writes (docs/api.md, "CSRF"): an unsafe request on the session cookie is
 * refused when the browser says that another site sent it. Programs that send neither header pass.
 * @returns a function that throws AppError `csrf` (403).
 */
export function createCrossSiteCheck(publicUrl: string): (request: Request) => void {
  const ownOrigin = new URL(publicUrl).origin;
  return (request) => {
    if (SAFE_METHODS.has(request.method)) return;
    const site = request.headers['sec-fetch-site'];
    const origin = request.headers.origin;
    const fromElsewhere = site !== undefined && site !== 'same-origin' && site !== 'none';
    if (fromElsewhere || (origin !== undefined && origin !== ownOrigin)) {
      throw new AppError('csrf', 'This request came from another site.');
    }
  };
}
