import type { Request, Response } from 'express';
import type { Principal } from '../http/principal.ts';
import { readJsonBody } from '../http/json-body.ts';
import type { HttpCall } from '../http/route.ts';
import type { ActiveWork } from '../identity/service.ts';
import { MAX_JSON_SIZE } from '../lib/json.ts';
import { LOOP_HEADER, type LoopGuard } from '../lib/net/loop-guard.ts';
import type { Provider } from '../providers/provider.ts';
import type { UsageRecorder } from '../usage/service.ts';
import { parseRequestBody } from './admission/request-body.ts';
import { createAnswerProgress } from './answer-progress.ts';
import { recordAnswer } from './record-answer.ts';
import { runCall } from './request-lifetime.ts';
import { logDecision, toDecisionError, toSurfaceError } from './routing/decision-view.ts';
import type { GatewayDecision, Routing } from './routing/routing.ts';
import { refuseOtherModels } from './routing/token-restrictions.ts';
import type { Surface } from './surface.ts';
import { failCall, type CallProgress, type GatewayCall } from './upstream/calls.ts';
import type { KeyStatusWriter, ServeFromPool } from './upstream/serve-from-pool.ts';
import type { ServeFromSystem } from './upstream/serve-from-system.ts';

type PoolDecision = Extract<GatewayDecision, { kind: 'pool' }>;

export interface ServeRequestDeps {
  routing: Routing;
  keyStatus: KeyStatusWriter;
  activeWork: ActiveWork;
  loopGuard: LoopGuard;
  /** Throws for an unknown provider id. */
  getProvider(id: string): Provider;
  /** Limits a decision to the key that made the response which the request continues. */
  pinDecision(call: GatewayCall, decision: PoolDecision): Promise<PoolDecision>;
  usage: UsageRecorder;
  serveFromPool: ServeFromPool;
  serveFromSystem: ServeFromSystem;
}

const BODY_LIMITS = { maxBytes: 32 * 1024 * 1024, limits: MAX_JSON_SIZE };

/** Reads a request of a surface, decides on the payer, and serves the request with the payer's key. */
export type ServeRequest = (
  surface: Surface,
  call: HttpCall & { principal: Principal },
  request: Request,
  response: Response,
) => Promise<void>;

export function createServeRequest(deps: ServeRequestDeps): ServeRequest {
  return async (surface, call, request, response) => {
    const { bodyReservation, requestId, log } = call;
    const progress: CallProgress = { isBodySent: false };
    const { activeWork } = deps;
    const answer = createAnswerProgress(surface);
    await runCall({ response, principal: call.principal, log, activeWork }, async (lifetime) => {
      const { signal } = lifetime;
      let principal = call.principal;
      let requestedModel: string | undefined;
      let failure: unknown;
      try {
        deps.loopGuard.rejectLoop(request.get(LOOP_HEADER));
        const received = { ...BODY_LIMITS, reservation: bodyReservation, signal };
        // Not in a variable, which would retain the received bytes until the response is complete.
        const body = parseRequestBody(await readJsonBody(request, received), surface);
        requestedModel = body.model;
        principal = await call.reauthorize();
        const parts = { request, response, body, bodyReservation, signal, progress, answer };
        await serve(deps, { surface, principal, requestId, log, ...parts }, lifetime.requireByokTier);
      } catch (error) {
        failure = error;
        // The upstream may charge for what it received, and SDKs would send the request again by themselves.
        if (progress.isBodySent && !response.headersSent) response.setHeader('x-should-retry', 'false');
        throw error;
      } finally {
        recordAnswer(deps.usage, { surface, principal, requestId, requestedModel, answer, signal, failure });
      }
    });
  };
}

/** @param requireByokTier is called when the user's own keys serve the request. */
async function serve(deps: ServeRequestDeps, call: GatewayCall, requireByokTier: () => void): Promise<void> {
  refuseOtherModels(call.principal.token, call.body.fieldNames);
  const decision = await deps.routing.decide(call.principal, call.body.model, call.request.get(LOOP_HEADER));
  call.signal.throwIfAborted();
  logDecision(call.log, call.principal.user, decision);
  deps.keyStatus.writeUndecryptable(call, decision);
  const provider = decision.provider === null ? undefined : deps.getProvider(decision.provider);
  if (provider !== undefined && provider.surfaces[call.surface.name] === undefined)
    throw toSurfaceError(call.response, provider, call.surface);
  if (decision.kind === 'refused') throw toDecisionError(call.response, decision);
  try {
    if (decision.kind === 'pool') {
      requireByokTier();
      await deps.serveFromPool(call, await deps.pinDecision(call, decision));
    } else await deps.serveFromSystem(call, decision);
  } catch (error) {
    failCall(call, call.signal.aborted ? call.signal.reason : error);
    throw error;
  }
}
