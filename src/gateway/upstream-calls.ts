import type { Request, Response } from 'express';
import type { Principal } from '../http/principal.ts';
import type { Dialer, UpstreamAnswer } from '../lib/dialer.ts';
import type { Log } from '../lib/log.ts';
import { createScrub } from '../lib/scrub.ts';
import type { Provider } from '../providers/provider.ts';
import { judgeAnswer, type JudgedAnswer } from './answer.ts';
import type { BodyShare } from './body-budget.ts';
import type { ChatRequest } from './chat-request.ts';
import { deliver } from './deliver.ts';
import { upstreamHeaders, writeReceipt, type Receipt } from './headers.ts';
import type { MaskIdempotencyKey } from './idempotency.ts';
import { HOP_HEADER, type Hops } from '../lib/hop.ts';
import type { UpstreamAddress } from '../providers/address.ts';

/** One request on its way: who asks, what, and the connection to answer on. */
export interface Work {
  principal: Principal;
  requestId: string;
  log: Log;
  request: Request;
  response: Response;
  chat: ChatRequest;
  /** What the body takes of the process's budget. */
  share: BodyShare;
  signal: AbortSignal;
}

/** What goes to an upstream: where, with which credential, and who pays. */
export interface Target {
  provider: Provider;
  address: UpstreamAddress;
  /** Null when the endpoint wants no key. */
  secret: string | null;
  receipt: Receipt;
}

export interface UpstreamCalls {
  /**
   * Sends the request to one upstream and judges the answer's head; the receipt is on the response from here on.
   * @param isLast no other key may need the body: it is forgotten.
   */
  ask(work: Work, target: Target, isLast: boolean): Promise<JudgedAnswer>;
  /** Passes the answer on to the client. */
  pass(work: Work, target: Target, answer: JudgedAnswer): Promise<void>;
}

export interface UpstreamCallDeps {
  dialer: Dialer;
  hops: Hops;
  maskIdempotencyKey: MaskIdempotencyKey;
  timeouts: { firstByteMs: number; idleMs: number };
}

/** Builds the two halves of a call to an upstream. */
export function createUpstreamCalls(deps: UpstreamCallDeps): UpstreamCalls {
  const { dialer, hops, timeouts } = deps;

  function headersFor(work: Work, { address, receipt, secret }: Target): Record<string, string> {
    const { id } = work.principal.user;
    return upstreamHeaders({
      client: work.request.headers,
      secret,
      stream: work.chat.stream,
      scope: receipt.scope,
      hop: address.isUsers ? hops.extend(work.request.get(HOP_HEADER)) : null,
      maskIdempotencyKey: (value) => deps.maskIdempotencyKey(id, value),
    });
  }

  /** Not async: a function that waits would keep the body with its other variables. */
  function send(work: Work, target: Target): Promise<UpstreamAnswer> {
    const body = work.chat.withModel(target.receipt.model);
    work.share.keep(body.length);
    return dialer.request({
      url: new URL(`${target.address.baseUrl}/chat/completions`),
      method: 'POST',
      headers: headersFor(work, target),
      body,
      guarded: target.address.isUsers,
      signal: work.signal,
      firstByteTimeoutMs: timeouts.firstByteMs,
      idleTimeoutMs: timeouts.idleMs,
    });
  }

  return {
    async ask(work, target, isLast) {
      work.signal.throwIfAborted();
      writeReceipt(work.response, target.receipt);
      const answer = send(work, target);
      if (isLast) work.chat.forget();
      return judgeAnswer(await answer);
    },
    async pass(work, target, answer) {
      work.signal.throwIfAborted();
      writeReceipt(work.response, target.receipt);
      const end = await deliver(answer, work.response, {
        requestId: work.requestId,
        scrub: createScrub(target.secret === null ? [] : [target.secret]),
        signal: work.signal,
        idleTimeoutMs: timeouts.idleMs,
      });
      work.log.info({ event: 'answer_passed', status: answer.status, end }, 'answer passed on');
    },
  };
}
