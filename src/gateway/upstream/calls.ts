import type { Request, Response } from 'express';
import type { Principal } from '../../http/principal.ts';
import type { Dialer, UpstreamResponse } from '../../lib/net/dialer.ts';
import type { Log } from '../../lib/log.ts';
import { createRedactor } from '../../lib/redact.ts';
import type { Provider } from '../../providers/provider.ts';
import { classifyResponse, type ClassifiedResponse } from './response.ts';
import type { BodyReservation } from '../admission/body-limits.ts';
import type { ChatRequest } from '../surfaces/openai-chat/request.ts';
import { sendResponse } from './send-response.ts';
import { createUpstreamHeaders, writeReceiptHeaders, type Receipt } from './headers.ts';
import type { MaskIdempotencyKey } from './idempotency.ts';
import { LOOP_HEADER, type LoopGuard } from '../../lib/net/loop-guard.ts';
import type { UpstreamAddress } from '../../providers/address.ts';

/** One request on its way: who asks, what, and the connection to answer on. */
export interface GatewayCall {
  principal: Principal;
  requestId: string;
  log: Log;
  request: Request;
  response: Response;
  chat: ChatRequest;
  /** What the body takes of the process's budget. */
  bodyReservation: BodyReservation;
  signal: AbortSignal;
}

/** What goes to an upstream: where, with which credential, and who pays. */
export interface UpstreamTarget {
  provider: Provider;
  address: UpstreamAddress;
  /** Null when the endpoint wants no key. */
  secret: string | null;
  receipt: Receipt;
}

export interface UpstreamCalls {
  /**
   * Sends the request to one upstream and judges the answer's head; the receipt is on the response from here on.
   * @param isLastAttempt no other key may need the body: it is forgotten.
   */
  send(call: GatewayCall, target: UpstreamTarget, isLastAttempt: boolean): Promise<ClassifiedResponse>;
  /** Passes the answer on to the client. */
  respond(call: GatewayCall, target: UpstreamTarget, upstreamResponse: ClassifiedResponse): Promise<void>;
}

export interface UpstreamCallsDeps {
  dialer: Dialer;
  loopGuard: LoopGuard;
  maskIdempotencyKey: MaskIdempotencyKey;
  timeouts: { firstByteMs: number; idleMs: number };
}

/** Builds the two halves of a call to an upstream. */
export function createUpstreamCalls(deps: UpstreamCallsDeps): UpstreamCalls {
  const { dialer, loopGuard: hops, timeouts } = deps;

  function createHeaders(
    call: GatewayCall,
    { address, receipt, secret }: UpstreamTarget,
  ): Record<string, string> {
    const { id } = call.principal.user;
    return createUpstreamHeaders({
      clientHeaders: call.request.headers,
      secret,
      isStreaming: call.chat.isStreaming,
      scope: receipt.scope,
      loopHeader: address.isUserSupplied ? hops.extendHeader(call.request.get(LOOP_HEADER)) : null,
      maskIdempotencyKey: (value) => deps.maskIdempotencyKey(id, value),
    });
  }

  /** Not async: a function that waits would keep the body with its other variables. */
  function startRequest(call: GatewayCall, target: UpstreamTarget): Promise<UpstreamResponse> {
    const body = call.chat.withModel(target.receipt.model);
    call.bodyReservation.keepOnly(body.length);
    return dialer.request({
      url: new URL(`${target.address.baseUrl}/chat/completions`),
      method: 'POST',
      headers: createHeaders(call, target),
      body,
      guarded: target.address.isUserSupplied,
      signal: call.signal,
      firstByteTimeoutMs: timeouts.firstByteMs,
      idleTimeoutMs: timeouts.idleMs,
    });
  }

  return {
    async send(call, target, isLastAttempt) {
      call.signal.throwIfAborted();
      writeReceiptHeaders(call.response, target.receipt);
      const upstreamResponse = startRequest(call, target);
      if (isLastAttempt) call.chat.forget();
      return classifyResponse(await upstreamResponse);
    },
    async respond(call, target, upstreamResponse) {
      call.signal.throwIfAborted();
      writeReceiptHeaders(call.response, target.receipt);
      const outcome = await sendResponse(upstreamResponse, call.response, {
        requestId: call.requestId,
        scrub: createRedactor(target.secret === null ? [] : [target.secret]),
        signal: call.signal,
        idleTimeoutMs: timeouts.idleMs,
      });
      call.log.info(
        { event: 'answer_passed', status: upstreamResponse.status, end: outcome },
        'answer passed on',
      );
    },
  };
}
