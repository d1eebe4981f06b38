import type { Response } from 'express';
import { BYOK_TIER, type Tier } from '../config/tiers.ts';
import type { Principal } from '../http/principal.ts';
import type { ActiveWork } from '../identity/service.ts';
import type { Log } from '../lib/log.ts';

/** Abort reason when the client has closed the connection, so that no response can be sent. */
const CLIENT_GONE = Symbol('client gone');

export interface RequestLifetime {
  /**
   * Aborts all work for the request. The reason is {@link CLIENT_GONE}, or an AppError for the client:
   * `unauthenticated` when the sign-in has ended (sign-out, user disabled or deleted), `tier_required` when the tier was
   * lowered, `draining` on shutdown.
   */
  signal: AbortSignal;
  /** From now on the request also ends when the user's tier no longer includes stored keys. */
  requireByokTier: () => void;
  close(): void;
}

export interface CallContext {
  response: Response;
  principal: Principal;
  log: Log;
  activeWork: ActiveWork;
}

/**
 * Does the work of a gateway request. When the client disconnects meanwhile, that is logged, and no error is thrown.
 * @throws what `work` throws; the reason of the signal when the user may no longer be served, or the process stops.
 */
export async function runCall(
  { response, principal, log, activeWork }: CallContext,
  work: (lifetime: RequestLifetime) => Promise<void>,
): Promise<void> {
  const lifetime = createRequestLifetime(response, principal, activeWork);
  const { signal } = lifetime;
  try {
    await work(lifetime);
  } catch (error) {
    if (!signal.aborted) throw error;
    if (signal.reason === CLIENT_GONE)
      log.info({ event: 'client_gone' }, 'the client disconnected before the response was complete');
    else throw signal.reason;
  } finally {
    lifetime.close();
  }
}

/** Ends the work for a request when the client disconnects, the user may no longer be served, or the process stops. */
function createRequestLifetime(
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
  const register = (needs?: { tier: Tier }) =>
    activeWork.register(principal, (_reason, error) => controller.abort(error), needs);
  let unregister = register();
  return {
    signal: controller.signal,
    requireByokTier() {
      const unregisterFirst = unregister;
      unregister = register({ tier: BYOK_TIER });
      unregisterFirst();
    },
    close() {
      unregister();
      response.off('close', onClose);
    },
  };
}
