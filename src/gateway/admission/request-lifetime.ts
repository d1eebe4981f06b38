import type { Response } from 'express';
import type { Principal } from '../../http/principal.ts';
import type { ActiveWork } from '../../identity/service.ts';
import { drainingError } from '../../http/draining-error.ts';
import { unauthenticated } from '../../lib/errors.ts';

/** Abort reason when the client has closed the connection, so that no response can be sent. */
export const CLIENT_GONE = Symbol('client gone');

export interface RequestLifetime {
  /**
   * Aborts all work for the request. The reason is {@link CLIENT_GONE}, or an AppError for the client:
   * `unauthenticated` when the sign-in has ended (sign-out, user disabled or deleted), `draining` on shutdown.
   */
  signal: AbortSignal;
  close(): void;
}

/** Ends the work for a request when the client disconnects, the user signs out or is disabled, or the process stops. */
export function createRequestLifetime(
  response: Response,
  principal: Principal,
  activeWork: ActiveWork,
): RequestLifetime {
  const controller = new AbortController();
  const onClose = () => {
    if (!response.writableFinished) controller.abort(CLIENT_GONE);
  };
  response.once('close', onClose);
  if (response.destroyed) onClose();
  const unregister = activeWork.register(principal, (reason) => {
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
