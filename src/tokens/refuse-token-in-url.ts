import type { NextFunction, Request, Response } from 'express';
import { AppError } from '../lib/errors.ts';
import { containsToken } from './token-format.ts';

/** An encoding within an encoding, as in a link to a page that redirects. */
const MAX_DECODINGS = 2;

/**
 * Middleware that refuses a personal token in a path or query, plain or percent-encoded: proxies and browsers log
 * addresses. The error does not repeat it.
 * @throws AppError `validation_failed` (400).
 */
export function refuseTokenInUrl(request: Request, _response: Response, next: NextFunction): void {
  let url = request.originalUrl;
  for (let count = 0; count <= MAX_DECODINGS; count += 1) {
    if (containsToken(url)) throw tokenInUrl();
    url = url.replace(/%([0-9a-f]{2})/gi, (_escape, hex: string) => String.fromCharCode(parseInt(hex, 16)));
  }
  next();
}

function tokenInUrl(): AppError {
  return new AppError(
    'validation_failed',
    'The address contains a personal token. Revoke it, since addresses are logged on the way, and send a new one in ' +
      'the header Authorization: Bearer.',
  );
}
