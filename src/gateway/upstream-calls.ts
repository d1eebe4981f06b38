import type { Request, Response } from 'express';
import type { Principal } from '../http/principal.ts';
import type { Dialer } from '../lib/dialer.ts';
import type { Log } from '../lib/log.ts';
import { createScrub } from '../lib/scrub.ts';
import type { Provider } from '../providers/provider.ts';
import { judgeAnswer, type JudgedAnswer } from './answer.ts';
import type { ChatRequest } from './chat-request.ts';
import { deliver } from './deliver.ts';
import { upstreamHeaders, writeReceipt, type Receipt } from './headers.ts';
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
  /** Sends the request to one upstream and judges the answer's head; the receipt is on the response from here on. */
  ask(work: Work, target: Target): Promise<JudgedAnswer>;
  /** Passes the answer on to the client. */
  pass(work: Work, target: Target, answer: JudgedAnswer): Promise<void>;
}

export interface UpstreamCallDeps {
  dialer: Dialer;
  hops: Hops;
  timeouts: { firstByteMs: number; idleMs: number };
}

/** Builds the two halves of a call to an upstream. */
export function createUpstreamCalls({ dialer, hops, timeouts }: UpstreamCallDeps): UpstreamCalls {
  return {
    async ask(work, target) {
      work.signal.throwIfAborted();
      writeReceipt(work.response, target.receipt);
      const { address, receipt, secret } = target;
      const answer = await dialer.request({
        url: new URL(`${address.baseUrl}/chat/completions`),
        method: 'POST',
        headers: upstreamHeaders({
          client: work.request.headers,
          secret,
          stream: work.chat.stream,
          scope: receipt.scope,
          hop: address.isUsers ? hops.extend(work.request.get(HOP_HEADER)) : null,
        }),
        body: work.chat.withModel(receipt.model),
        guarded: address.isUsers,
        signal: work.signal,
        firstByteTimeoutMs: timeouts.firstByteMs,
        idleTimeoutMs: timeouts.idleMs,
      });
      return judgeAnswer(answer);
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
