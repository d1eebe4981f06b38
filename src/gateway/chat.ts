import type { Request, Response } from 'express';
import { requireTier, type Call } from '../http/routes.ts';
import type { Principal } from '../http/principal.ts';
import type { Directory } from '../identity/service.ts';
import type { LiveWork } from '../identity/service.ts';
import { AppError, unauthenticated } from '../lib/errors.ts';
import type { Provider } from '../providers/provider.ts';
import { BYOK_TIER } from '../tiers.ts';
import type { JudgedAnswer } from './answer.ts';
import { readChatBody } from './body.ts';
import { checkOwnKeyBody, checkSharedPayerBody } from './body-rules.ts';
import { readChatRequest } from './chat-request.ts';
import { CLIENT_GONE, openExchange } from './exchange.ts';
import { writeReceipt, type Receipt } from './headers.ts';
import type { KeyNotes } from './key-notes.ts';
import { HOP_HEADER, type Hops } from './hop.ts';
import { logRouting } from './events.ts';
import { refusal } from './refusal.ts';
import type { GatewayDecision, GatewayKey, Routing } from './routing.ts';
import type { SystemLimits } from './system-limits.ts';
import { keyAddress, systemAddress, type OperatorUpstreams } from './upstream-address.ts';
import type { Target, UpstreamCalls, Work } from './upstream-calls.ts';

export interface ChatDeps {
  routing: Routing;
  notes: KeyNotes;
  directory: Directory;
  liveWork: LiveWork;
  calls: UpstreamCalls;
  hops: Hops;
  limits: SystemLimits;
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  /** The system default's credential and address; its models are the routing's business. */
  system: { apiKey: string; baseUrl: string | undefined; extraFields: readonly string[] } | null;
}

type PoolDecision = Extract<GatewayDecision, { kind: 'pool' }>;
type SystemDecision = Extract<GatewayDecision, { kind: 'system' }>;

export interface Chat {
  /** Answers `POST /v1/chat/completions`. */
  complete(call: Call & { principal: Principal }, request: Request, response: Response): Promise<void>;
}

/** Builds the chat surface: read, decide, check the body for its payer, ask an upstream, pass its answer on. */
export function createChat(deps: ChatDeps): Chat {
  async function complete(
    call: Call & { principal: Principal },
    request: Request,
    response: Response,
  ): Promise<void> {
    const exchange = openExchange(response, call.principal, deps.liveWork);
    try {
      deps.hops.refuseLoop(request.get(HOP_HEADER));
      const chat = readChatRequest(await readChatBody(request, response, exchange.signal));
      const { principal, requestId, log } = call;
      await answer({ principal, requestId, log, request, response, chat, signal: exchange.signal });
    } catch (error) {
      if (!exchange.signal.aborted) throw error;
      if (exchange.signal.reason === CLIENT_GONE)
        call.log.info({ event: 'client_gone' }, 'the client left before its answer was complete');
      else throw exchange.signal.reason;
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
    if (decision.kind === 'pool') await answerFromPool(work, decision);
    else await answerFromSystem(work, decision);
  }

  /** Tries the pool's keys in turn. Only a 401 moves on to the next; when all say so, the first 401 is the answer. */
  async function answerFromPool(work: Work, decision: PoolDecision): Promise<void> {
    const provider = providerOf(decision.provider);
    deps.routing.takeTurn(work.principal.user, decision);
    let firstRefusal: { answer: JudgedAnswer; target: Target } | undefined;
    let attempts = 0;
    for (const key of decision.keys) {
      if (attempts > 0) await authorizeAgain(deps.directory, work.principal);
      attempts += 1;
      const target = keyTarget(provider, key, decision, attempts, deps.upstreams);
      checkOwnKeyBody(work.chat, target.address.isOperators);
      const answer = await deps.calls.ask(work, target);
      if (answer.kind !== 'error' || answer.status !== 401) {
        if (answer.kind !== 'error') deps.notes.used(work, provider.id, key.id);
        return deps.calls.pass(work, target, answer);
      }
      await deps.notes.refused(work, provider.id, key.id);
      firstRefusal ??= { answer, target };
    }
    if (firstRefusal === undefined) throw new Error('a pool decision without keys');
    firstRefusal.target.receipt.attempts = attempts;
    work.response.setHeader('x-should-retry', 'false');
    return deps.calls.pass(work, firstRefusal.target, firstRefusal.answer);
  }

  async function answerFromSystem(work: Work, decision: SystemDecision): Promise<void> {
    if (deps.system === null) throw new Error('a system decision without a system default');
    const provider = providerOf(decision.provider);
    const address = systemAddress(provider, deps.system.baseUrl, deps.upstreams);
    if (address === undefined)
      throw new AppError('no_default_provider', 'The system default has no address.');
    const { model, reason } = decision;
    const receipt: Receipt = {
      provider: provider.id,
      model,
      scope: 'system',
      keyId: null,
      attempts: 0,
      reason,
    };
    writeReceipt(work.response, receipt);
    checkSharedPayerBody(work.chat, deps.system.extraFields);
    const leave = await deps.limits.enter(work.principal.user.id, work.response);
    try {
      const target: Target = {
        provider,
        address,
        secret: deps.system.apiKey,
        receipt: { ...receipt, attempts: 1 },
      };
      await deps.calls.pass(work, target, await deps.calls.ask(work, target));
    } finally {
      leave();
    }
  }

  function providerOf(id: string): Provider {
    const provider = deps.providers.find((candidate) => candidate.id === id);
    if (provider === undefined) throw new Error(`no provider ${id}`);
    return provider;
  }

  return { complete };
}

function keyTarget(
  provider: Provider,
  key: GatewayKey,
  decision: PoolDecision,
  attempts: number,
  upstreams: OperatorUpstreams,
): Target {
  const opened = key.open();
  const address = opened && keyAddress(provider, opened.endpoint, upstreams);
  if (opened === undefined || address === undefined) {
    throw new AppError('key_undecryptable', 'The stored key cannot be used any more. Add it again.');
  }
  const { model, scope } = decision;
  const receipt: Receipt = { provider: provider.id, model, scope, keyId: key.id, attempts, reason: null };
  return { provider, address, secret: opened.secret === '' ? null : opened.secret, receipt };
}

/** Every attempt is authorized anew: the user may have been disabled or downgraded since the first. */
async function authorizeAgain(directory: Directory, principal: Principal): Promise<void> {
  const user = await directory.findUser(principal.user.id);
  if (user === undefined) throw unauthenticated();
  requireTier({ ...principal, user }, BYOK_TIER);
}
