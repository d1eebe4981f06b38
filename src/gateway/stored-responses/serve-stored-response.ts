import type { Request, Response } from 'express';
import type { Principal } from '../../http/principal.ts';
import type { HttpCall } from '../../http/route.ts';
import type { ActiveWork } from '../../identity/service.ts';
import { userOwner } from '../../lib/owner.ts';
import { LOOP_HEADER, type LoopGuard } from '../../lib/net/loop-guard.ts';
import type { OperatorUpstreams } from '../../providers/address.ts';
import type { Provider } from '../../providers/provider.ts';
import { createEmptyBody } from '../admission/empty-body.ts';
import { runCall } from '../request-lifetime.ts';
import { createAnswerProgress } from '../answer-progress.ts';
import type { Surface } from '../surface.ts';
import type { CallMethod, GatewayCall, UpstreamCalls } from '../upstream/calls.ts';
import { failCall } from '../upstream/calls.ts';
import { createPoolTarget } from '../upstream/serve-from-pool.ts';
import { getPinnedKey, type PinnedKeyDeps } from './pinned-key.ts';

/** A call about one stored response, whose path is that of its protocol, the id, and `suffix`. */
export interface StoredResponseOperation {
  method: CallMethod;
  suffix: '' | '/cancel' | '/input_items';
}

export interface ServeStoredResponseDeps extends PinnedKeyDeps {
  activeWork: ActiveWork;
  loopGuard: LoopGuard;
  calls: UpstreamCalls;
  /** Throws for an unknown provider id. */
  getProvider(id: string): Provider;
  upstreams: OperatorUpstreams;
}

/** Reads, cancels or deletes a stored response at its provider, with the key that made it. */
export type ServeStoredResponse = (
  surface: Surface,
  operation: StoredResponseOperation,
  call: HttpCall & { principal: Principal },
  request: Request,
  response: Response,
) => Promise<void>;

export function createServeStoredResponse(deps: ServeStoredResponseDeps): ServeStoredResponse {
  async function serve(call: GatewayCall, operation: StoredResponseOperation): Promise<void> {
    const responseId = String(call.request.params['id']);
    const { stored, pool, key } = await getPinnedKey(deps, call, responseId);
    const path = `/${encodeURIComponent(stored.id)}${operation.suffix}`;
    const pinnedCall = { ...call, surface: { ...call.surface, pathSuffix: path + toQuery(call) } };
    const provider = deps.getProvider(stored.provider);
    const target = createPoolTarget(provider, key, { pool, model: stored.model }, 1, deps.upstreams);
    try {
      const upstreamResponse = await deps.calls.send(pinnedCall, target, true);
      const isDeleted = operation.method === 'DELETE' && upstreamResponse.kind === 'json';
      if (isDeleted) deps.storedResponses.remove(userOwner(call.principal.user.id), stored.id, call.log);
      await deps.calls.respond(pinnedCall, target, upstreamResponse);
    } catch (error) {
      failCall(pinnedCall, call.signal.aborted ? call.signal.reason : error);
      throw error;
    }
  }

  return async (surface, operation, call, request, response) => {
    const { principal, requestId, log, bodyReservation } = call;
    deps.loopGuard.rejectLoop(request.get(LOOP_HEADER));
    await runCall({ response, principal, log, activeWork: deps.activeWork }, async (lifetime) => {
      lifetime.requireByokTier();
      const isStreaming = operation.method === 'GET' && readQuery(request).get('stream') === 'true';
      const body = createEmptyBody({ isStreaming, createProgress: surface.prepareProgress({}) });
      const { method } = operation;
      const { signal } = lifetime;
      const progress = { isBodySent: false };
      await serve(
        {
          surface,
          method,
          principal,
          requestId,
          log,
          request,
          response,
          body,
          bodyReservation,
          signal,
          progress,
          // No request for the ledger: the response that is read was recorded when it was made.
          answer: createAnswerProgress(surface),
        },
        operation,
      );
    });
  };
}

/** The only members of a query that an upstream receives. SDKs send lists with `[]`. */
const PASSED_QUERY = new Set(['include', 'include[]', 'stream', 'starting_after', 'after', 'limit', 'order']);
/** More than there are values of `include`. */
const MAX_QUERY_MEMBERS = 32;

function toQuery({ request, method }: GatewayCall): string {
  if (method !== 'GET') return '';
  const passed = [...readQuery(request)].filter(([name]) => PASSED_QUERY.has(name));
  if (passed.length === 0) return '';
  return `?${new URLSearchParams(passed.slice(0, MAX_QUERY_MEMBERS)).toString()}`;
}

function readQuery(request: Request): URLSearchParams {
  return new URL(request.url, 'http://localhost').searchParams;
}
