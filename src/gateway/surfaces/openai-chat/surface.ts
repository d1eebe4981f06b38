import type { Request, Response } from 'express';
import type { Principal } from '../../../http/principal.ts';
import type { HttpCall } from '../../../http/route.ts';
import type { ActiveWork } from '../../../identity/service.ts';
import { readRequestBody, type BodyLimits } from '../../admission/body-limits.ts';
import { readChatRequest } from './request.ts';
import { logDecision, toDecisionError } from '../../routing/decision-view.ts';
import { CLIENT_GONE, createRequestLifetime } from '../../admission/request-lifetime.ts';
import { LOOP_HEADER, type LoopGuard } from '../../../lib/net/loop-guard.ts';
import type { KeyStatusWriter } from '../../routing/key-status-writer.ts';
import type { OpenRequestLimit } from '../../../http/limits.ts';
import type { ServeFromPool } from '../../upstream/serve-from-pool.ts';
import type { Routing } from '../../routing/routing.ts';
import type { ServeFromSystem } from '../../upstream/serve-from-system.ts';
import type { GatewayCall } from '../../upstream/calls.ts';

export interface ChatSurfaceDeps {
  routing: Routing;
  keyStatus: KeyStatusWriter;
  activeWork: ActiveWork;
  loopGuard: LoopGuard;
  openRequestLimit: OpenRequestLimit;
  bodyLimits: BodyLimits;
  serveFromPool: ServeFromPool;
  serveFromSystem: ServeFromSystem;
}

export interface ChatSurface {
  /** Handles `POST /v1/chat/completions`. */
  complete(call: HttpCall & { principal: Principal }, request: Request, response: Response): Promise<void>;
}

/** Reads the request, decides on the payer, and serves the request with the payer's key. */
export function createChatSurface(deps: ChatSurfaceDeps): ChatSurface {
  async function complete(
    call: HttpCall & { principal: Principal },
    request: Request,
    response: Response,
  ): Promise<void> {
    const userId = call.principal.user.id;
    deps.openRequestLimit.acquire(userId, response);
    const bodyReservation = deps.bodyLimits.createReservation(userId, response);
    const lifetime = createRequestLifetime(response, call.principal, deps.activeWork);
    const { signal } = lifetime;
    try {
      deps.loopGuard.rejectLoop(request.get(LOOP_HEADER));
      const chat = readChatRequest(await readRequestBody(request, response, bodyReservation, signal));
      const principal = await call.reauthorize();
      const { requestId, log } = call;
      await serve({ principal, requestId, log, request, response, chat, bodyReservation, signal });
    } catch (error) {
      if (!signal.aborted) throw error;
      if (signal.reason === CLIENT_GONE)
        call.log.info({ event: 'client_gone' }, 'the client disconnected before the response was complete');
      else throw signal.reason;
    } finally {
      lifetime.close();
    }
  }

  async function serve(call: GatewayCall): Promise<void> {
    const decision = await deps.routing.decide(call.principal.user, call.chat.model);
    call.signal.throwIfAborted();
    logDecision(call.log, call.principal.user, decision);
    deps.keyStatus.writeUndecryptable(call, decision);
    if (decision.kind === 'refused') throw toDecisionError(call.response, decision);
    if (decision.kind === 'pool') await deps.serveFromPool(call, decision);
    else await deps.serveFromSystem(call, decision);
  }

  return { complete };
}
