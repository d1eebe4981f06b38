import type { Request, Response } from 'express';
import { toAppError } from '../../http/errors.ts';
import type { Principal } from '../../http/principal.ts';
import { createSseWriter, type SseWriter } from '../../http/sse.ts';
import type { Dialer, UpstreamResponse } from '../../lib/net/dialer.ts';
import type { Log } from '../../lib/log.ts';
import { createRedactor, type Redactor } from '../../lib/redact.ts';
import type { Provider } from '../../providers/provider.ts';
import { classifyResponse, toResponseLimits, type ClassifiedResponse } from './response.ts';
import type { BodyReservation } from '../../http/body-budget.ts';
import type { RequestBody } from '../admission/request-body.ts';
import type { AnswerProgress } from '../answer-progress.ts';
import type { Surface } from '../surface.ts';
import type { MaskIdempotencyKey } from './idempotency-mask.ts';
import { createResponseRecording } from './response-recording.ts';
import { IDEMPOTENCY_KEY, listForwardedHeaders } from './request-headers.ts';
import { sendResponse, type SendOutcome } from './send-response.ts';
import {
  findUpstreamRequestId,
  removeReceiptHeaders,
  writeReceiptHeaders,
  type Receipt,
} from './response-headers.ts';
import { LOOP_HEADER, type LoopGuard } from '../../lib/net/loop-guard.ts';
import type { UpstreamAddress } from '../../providers/address.ts';

/** Methods of calls to an upstream. */
export type CallMethod = 'GET' | 'POST' | 'DELETE';

/** One gateway request: the authenticated principal, the request that was read, and the response to write. */
export interface GatewayCall {
  surface: Surface;
  /** For calls without a body; POST with the body by default. */
  method?: CallMethod;
  principal: Principal;
  requestId: string;
  log: Log;
  request: Request;
  response: Response;
  body: RequestBody;
  /** Memory that the request body holds under the process's limits. */
  bodyReservation: BodyReservation;
  signal: AbortSignal;
  progress: CallProgress;
  answer: AnswerProgress;
}

/** What has been done for a request so far. */
export interface CallProgress {
  /** True from when the body began to go out to an upstream, which may charge for it. */
  isBodySent: boolean;
  /** Set with the first call to an upstream. */
  current?: {
    /** The response as an event stream. For a request of one, it begins after a time of silence. */
    events: SseWriter;
    /** Of the last call. */
    receipt: Receipt;
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
  /**
   * Where the provider stores the response: records that this key made it. The last bytes of the response wait for the
   * promise, which never rejects.
   */
  recordResponse?: (responseId: string) => Promise<void>;
}

export interface UpstreamCalls {
  /**
   * Sends the request to one upstream and classifies the response. Writes the receipt headers first. When a stream was
   * asked for and no upstream has answered for a time, counted from the first call, the response begins without them.
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
  timeouts: GatewayTimeouts;
}

export interface GatewayTimeouts {
  firstByteMs: number;
  idleMs: number;
  /** How long a streamed response is silent at most. */
  streamSilenceMs: number;
}

export function createUpstreamCalls(deps: UpstreamCallsDeps): UpstreamCalls {
  const { dialer, loopGuard, timeouts } = deps;

  /** Builds the headers of an upstream request from an allow-list: no other client header is forwarded. */
  function createHeaders(
    { surface, method, request, body, principal }: GatewayCall,
    { provider, address, receipt, secret }: UpstreamTarget,
  ): Record<string, string> {
    const headers: Record<string, string> = {
      ...(method === undefined ? { 'content-type': 'application/json' } : {}),
      accept: body.isStreaming ? 'text/event-stream' : 'application/json',
      // The response is inspected and forwarded unchanged, so it must not be compressed.
      'accept-encoding': 'identity',
      'user-agent': 'ops-center',
      ...surface.defaultHeaders,
      ...listForwardedHeaders(request.headers, receipt.scope),
      ...(secret === null ? {} : provider.authorize(secret, surface.name)),
    };
    const idempotencyKey = headers[IDEMPOTENCY_KEY];
    if (idempotencyKey !== undefined && receipt.scope !== 'personal')
      headers[IDEMPOTENCY_KEY] = deps.maskIdempotencyKey(principal.user.id, idempotencyKey);
    if (address.isUserSupplied) headers[LOOP_HEADER] = loopGuard.extendHeader(request.get(LOOP_HEADER));
    return headers;
  }

  /** Not async, so that the request body is not retained while waiting. */
  function startRequest(call: GatewayCall, target: UpstreamTarget): Promise<UpstreamResponse> {
    const { provider, address, receipt } = target;
    const { name, pathSuffix = '' } = call.surface;
    const path = provider.surfaces[name];
    if (path === undefined) throw new Error(`${provider.id} has no ${name} surface`);
    const body = call.body.withModel(receipt.model);
    call.bodyReservation.keepOnly(body.length);
    return dialer.request({
      url: new URL(address.baseUrl + path + pathSuffix),
      method: call.method ?? 'POST',
      headers: createHeaders(call, target),
      ...(call.method === undefined ? { body } : {}),
      isGuarded: address.isUserSupplied,
      signal: call.signal,
      firstByteTimeoutMs: timeouts.firstByteMs,
      idleTimeoutMs: timeouts.idleMs,
      onSend: () => {
        call.progress.isBodySent = true;
      },
    });
  }

  function createEvents({ surface, body, response, signal }: GatewayCall): SseWriter {
    const events = createSseWriter(response, {
      keepAlive: surface.keepAlive,
      signal,
      idleTimeoutMs: timeouts.idleMs,
      maxSilenceMs: timeouts.streamSilenceMs,
    });
    if (body.isStreaming)
      events.beginAfterSilence(() => {
        removeReceiptHeaders(response);
      });
    return events;
  }

  function trackCall(call: GatewayCall, receipt: Receipt): SseWriter {
    const events = call.progress.current?.events ?? createEvents(call);
    call.progress.current = { events, receipt };
    writeReceiptHeaders(call.response, receipt);
    return events;
  }

  function trackRequestId(
    call: GatewayCall,
    { receipt }: UpstreamTarget,
    headers: UpstreamResponse['headers'],
    redact: Redactor,
  ): void {
    trackCall(call, { ...receipt, upstreamRequestId: findUpstreamRequestId(headers, redact) });
  }

  return {
    async send(call, target, isLastAttempt) {
      call.signal.throwIfAborted();
      trackCall(call, target.receipt);
      const pending = startRequest(call, target);
      if (isLastAttempt) call.body.release();
      const upstreamResponse = await pending;
      const { headers, isFromPublicAddress } = upstreamResponse;
      // Before the response is classified, so that an error about a malformed one names the request as well.
      if (isFromPublicAddress) trackRequestId(call, target, headers, createTargetRedactor(target));
      const classified = await classifyResponse(upstreamResponse, {
        surface: call.surface,
        isStreaming: call.body.isStreaming,
        limits: toResponseLimits(target.address),
        reservation: call.bodyReservation,
        signal: call.signal,
      });
      const requestBytes = isLastAttempt ? 0 : call.body.byteLength();
      call.bodyReservation.keepOnly(requestBytes + (classified.kind === 'json' ? classified.body.length : 0));
      return classified;
    },
    async respond(call, target, upstreamResponse) {
      call.signal.throwIfAborted();
      const events = trackCall(call, target.receipt);
      // No further attempt needs it.
      call.body.release();
      call.bodyReservation.keepOnly(upstreamResponse.kind === 'json' ? upstreamResponse.body.length : 0);
      const recording = createResponseRecording(call.surface, target.recordResponse);
      if (upstreamResponse.kind === 'json') recording.record(upstreamResponse.responseId);
      const redact = createTargetRedactor(target);
      call.answer.beginAnswer(redact);
      const outcome = await sendResponse(upstreamResponse, call.response, {
        surface: call.surface,
        requestId: call.requestId,
        redact,
        progress: recording.follow(call.body.createProgress()),
        beforeEnd: recording.whenWritten,
        answer: call.answer,
        signal: call.signal,
        idleTimeoutMs: timeouts.idleMs,
        limits: toResponseLimits(target.address),
        reservation: call.bodyReservation,
        events,
        onHeaders: (headers) => {
          trackRequestId(call, target, headers, redact);
        },
      });
      call.answer.endAnswer(upstreamResponse.kind, outcome);
      logReceipt(call, upstreamResponse.status, outcome);
    },
  };
}

/**
 * Ends a request that failed after a first call to an upstream, and logs its receipt: the upstream may charge for the call.
 * A response that has begun as a stream ends with the protocol's error event, since the status cannot say it any more;
 * another response does not begin as a stream any more.
 */
export function failCall(call: GatewayCall, error: unknown): void {
  const { surface, requestId, response, progress } = call;
  if (progress.current === undefined) return;
  const { events } = progress.current;
  events[Symbol.dispose]();
  if (events.hasBegun && !response.destroyed && !response.writableEnded)
    events.end(surface.toErrorEvent(surface.toError(toAppError(error), requestId)));
  logReceipt(call, null, 'failed');
}

/** Logs the receipt of the last attempt, whose key was refused. The response has the receipt of one attempt only. */
export function logKeyRefusal(call: GatewayCall): void {
  call.log.info({ event: 'key_refused', ...toLogFields(call) }, 'the provider refused the key');
}

/** @param status of the upstream; null for an error of this server. */
function logReceipt(call: GatewayCall, status: number | null, end: SendOutcome): void {
  call.log.info(
    { event: 'answer_passed', status, end, ...toLogFields(call) },
    'request to the provider has ended',
  );
}

function toLogFields({ progress }: GatewayCall): Record<string, unknown> {
  if (progress.current === undefined) return {};
  const { receipt } = progress.current;
  const { provider, model, scope, keyId, endpointSlug, attempts, upstreamRequestId } = receipt;
  return {
    ...{ provider, model, key_scope: scope, key_id: keyId, endpoint: endpointSlug, attempts },
    upstream_request_id: upstreamRequestId,
  };
}

function createTargetRedactor({ secret }: UpstreamTarget): Redactor {
  return createRedactor(secret === null ? [] : [secret]);
}
