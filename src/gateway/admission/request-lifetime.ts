import type { Response } from 'express';
import type { Principal } from '../../http/principal.ts';
import type { ActiveWork } from '../../identity/service.ts';
import { drainingError } from '../../http/draining-error.ts';
import { unauthenticated } from '../../lib/errors.ts';

/** The reason of the abort when the client has closed the connection; nobody is left to answer. */
export const CLIENT_GONE = Symbol('client gone');

export interface RequestLifetime {
  /**
   * Aborts everything done for one request. Its reason is {@link CLIENT_GONE}, or an AppError to tell the
   * client: `unauthenticated` after a sign-out, `draining` on a stop.
   */
  signal: AbortSignal;
  close(): void;
}

/** Ties a request's work to its client's connection and to its user's right to have it done. */
export function createRequestLifetime(
  response: Response,
  principal: Principal,
  liveWork: ActiveWork,
): RequestLifetime {
  const controller = new AbortController();
  const onClose = () => {
    if (!response.writableFinished) controller.abort(CLIENT_GONE);
  };
  response.once('close', onClose);
  if (response.destroyed) onClose();
  const unregister = liveWork.register(principal, (reason) => {
    controller.abort(reason === 'signed_out' ? unauthenticated() : drainingError());
  });
  return {
    signal: controller.signal,
    close() {
      unregister();
      response.off('close', onClose);
    },
  };
}
