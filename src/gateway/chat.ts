import type { Request, Response } from 'express';
import type { Principal } from '../http/principal.ts';
import type { Call } from '../http/routes.ts';
import type { LiveWork } from '../identity/service.ts';
import { readChatBody } from './body.ts';
import type { BodyBudget } from './body-budget.ts';
import { readChatRequest } from './chat-request.ts';
import { logRouting } from './events.ts';
import { CLIENT_GONE, openExchange } from './exchange.ts';
import { HOP_HEADER, type Hops } from '../lib/hop.ts';
import type { KeyNotes } from './key-notes.ts';
import type { OpenRequests } from '../http/open-requests.ts';
import type { AnswerFromPool } from './pool-answer.ts';
import { refusal } from './refusal.ts';
import type { Routing } from './routing.ts';
import type { AnswerFromSystem } from './system-answer.ts';
import type { Work } from './upstream-calls.ts';

export interface ChatDeps {
  routing: Routing;
  notes: KeyNotes;
  liveWork: LiveWork;
  hops: Hops;
  openRequests: OpenRequests;
  bodyBudget: BodyBudget;
  answerFromPool: AnswerFromPool;
  answerFromSystem: AnswerFromSystem;
}

export interface Chat {
  /** Answers `POST /v1/chat/completions`. */
  complete(call: Call & { principal: Principal }, request: Request, response: Response): Promise<void>;
}

/** Builds the chat surface: read, decide, then have the one who pays answer. */
export function createChat(deps: ChatDeps): Chat {
  async function complete(
    call: Call & { principal: Principal },
    request: Request,
    response: Response,
  ): Promise<void> {
    const userId = call.principal.user.id;
    deps.openRequests.enter(userId, response);
    const share = deps.bodyBudget.open(userId, response);
    const exchange = openExchange(response, call.principal, deps.liveWork);
    const { signal } = exchange;
    try {
      deps.hops.refuseLoop(request.get(HOP_HEADER));
      const chat = readChatRequest(await readChatBody(request, response, share, signal));
      const principal = await call.reauthorize();
      const { requestId, log } = call;
      await answer({ principal, requestId, log, request, response, chat, share, signal });
    } catch (error) {
      if (!signal.aborted) throw error;
      if (signal.reason === CLIENT_GONE)
        call.log.info({ event: 'client_gone' }, 'the client left before its answer was complete');
      else throw signal.reason;
    } finally {
      exchange.close();
    }
  }

  async function answer(work: Work): Promise<void> {
    const decision = await deps.routing.decide(work.principal.user, work.chat.model);
    work.signal.throwIfAborted();
    logRouting(work.log, work.principal.user, decision);
    deps.notes.damaged(work, decision);
    if (decision.kind === 'refused') throw refusal(work.response, decision);
    if (decision.kind === 'pool') await deps.answerFromPool(work, decision);
    else await deps.answerFromSystem(work, decision);
  }

  return { complete };
}
