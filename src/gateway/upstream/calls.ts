import type { Request, Response } from 'express';
import type { Principal } from '../../http/principal.ts';
import type { Dialer, UpstreamResponse } from '../../lib/net/dialer.ts';
import type { Log } from '../../lib/log.ts';
import { createRedactor, type Redactor } from '../../lib/redact.ts';
import type { Provider } from '../../providers/provider.ts';
import { classifyResponse, type ClassifiedResponse } from './response.ts';
import type { BodyReservation } from '../../http/body-budget.ts';
import type { RequestBody } from '../admission/request-body.ts';
import type { Surface } from '../surface.ts';
import { sendResponse } from './send-response.ts';
import {
  createUpstreamHeaders,
  UPSTREAM_REQUEST_ID,
  writeReceiptHeaders,
  writeUpstreamRequestId,
  type MaskIdempotencyKey,
  type Receipt,
} from './headers.ts';
import { LOOP_HEADER, type LoopGuard } from '../../lib/net/loop-guard.ts';
import type { UpstreamAddress } from '../../providers/address.ts';

/** One gateway request: the authenticated principal, the request that was read, and the response to write. */
export interface GatewayCall {
  surface: Surface;
  principal: Principal;
  requestId: string;
  log: Log;
  request: Request;
  response: Response;
  body: RequestBody;
  /** Memory that the request body holds under the process's limits. */
  bodyReservation: BodyReservation;
  signal: AbortSignal;
  progress: {
    /** True from when the body began to go out to an upstream, which may charge for it. */
    isBodySent: boolean;
  };
}

/** Destination of one upstream request: provider, address, credential and payer. */
export interface UpstreamTarget {
  provider: Provider;
  address: UpstreamAddress;
  /** Null when the endpoint needs no key. */
  secret: string | null;
  /** The response headers that name provider, model, key and payer. */
  receipt: Receipt;
}

export interface UpstreamCalls {
  /**
   * Sends the request to one upstream and classifies the response. Writes the receipt headers first.
   * @param isLastAttempt true when no further key will be tried: the body is released after sending.
   */
  send(call: GatewayCall, target: UpstreamTarget, isLastAttempt: boolean): Promise<ClassifiedResponse>;
  /** Sends the upstream's response to the client. */
  respond(call: GatewayCall, target: UpstreamTarget, upstreamResponse: ClassifiedResponse): Promise<void>;
}

export interface UpstreamCallsDeps {
  dialer: Dialer;
  loopGuard: LoopGuard;
  maskIdempotencyKey: MaskIdempotencyKey;
  timeouts: { firstByteMs: number; idleMs: number };
}

export function createUpstreamCalls(deps: UpstreamCallsDeps): UpstreamCalls {
  const { dialer, loopGuard, timeouts } = deps;

  function createHeaders(
    call: GatewayCall,
    { address, receipt, secret }: UpstreamTarget,
  ): Record<string, string> {
    const { id } = call.principal.user;
    return createUpstreamHeaders({
      clientHeaders: call.request.headers,
      secret,
      isStreaming: call.body.isStreaming,
      scope: receipt.scope,
      loopHeader: address.isUserSupplied ? loopGuard.extendHeader(call.request.get(LOOP_HEADER)) : null,
      maskIdempotencyKey: (value) => deps.maskIdempotencyKey(id, value),
    });
  }

  /** Not async, so that the request body is not retained while waiting. */
  function startRequest(call: GatewayCall, target: UpstreamTarget): Promise<UpstreamResponse> {
    const { provider, address, receipt } = target;
    const path = provider.surfaces[call.surface.name];
    if (path === undefined) throw new Error(`${provider.id} has no ${call.surface.name} surface`);
    const body = call.body.withModel(receipt.model);
    call.bodyReservation.keepOnly(body.length);
    return dialer.request({
      url: new URL(address.baseUrl + path),
      method: 'POST',
      headers: createHeaders(call, target),
      body,
      isGuarded: address.isUserSupplied,
      signal: call.signal,
      firstByteTimeoutMs: timeouts.firstByteMs,
      idleTimeoutMs: timeouts.idleMs,
      onSend: () => {
        call.progress.isBodySent = true;
      },
    });
  }

  return {
    async send(call, target, isLastAttempt) {
      call.signal.throwIfAborted();
      writeReceiptHeaders(call.response, target.receipt);
      const pending = startRequest(call, target);
      if (isLastAttempt) call.body.release();
      const upstreamResponse = await pending;
      const { headers, isFromPublicAddress } = upstreamResponse;
      // Before the response is classified, so that an error about a malformed one names the request as well.
      writeUpstreamRequestId(call.response, isFromPublicAddress ? headers : {}, createTargetRedactor(target));
      const classified = await classifyResponse(upstreamResponse, call.surface, (bytes) => {
        call.bodyReservation.add(bytes);
      });
      const requestBytes = isLastAttempt ? 0 : call.body.byteLength();
      call.bodyReservation.keepOnly(requestBytes + (classified.kind === 'json' ? classified.body.length : 0));
      return classified;
    },
    async respond(call, target, upstreamResponse) {
      call.signal.throwIfAborted();
      writeReceiptHeaders(call.response, target.receipt);
      const outcome = await sendResponse(upstreamResponse, call.response, {
        surface: call.surface,
        requestId: call.requestId,
        redact: createTargetRedactor(target),
        choiceCount: call.body.choiceCount,
        signal: call.signal,
        idleTimeoutMs: timeouts.idleMs,
      });
      const { status } = upstreamResponse;
      const upstreamRequestId = call.response.getHeader(UPSTREAM_REQUEST_ID) ?? null;
      call.log.info(
        { event: 'answer_passed', status, end: outcome, upstream_request_id: upstreamRequestId },
        'response sent to the client',
      );
    },
  };
}

function createTargetRedactor({ secret }: UpstreamTarget): Redactor {
  return createRedactor(secret === null ? [] : [secret]);
}
