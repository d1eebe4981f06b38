import { toAppError } from '../http/errors.ts';
import type { Principal } from '../http/principal.ts';
import { userOwner } from '../lib/owner.ts';
import type { UsageRecorder } from '../usage/service.ts';
import type { AnswerProgress } from './answer-progress.ts';
import type { Surface } from './surface.ts';

export interface EndedRequest {
  surface: Surface;
  principal: Principal;
  requestId: string;
  /** As the client named it; undefined when it named none, or when the body was refused. */
  requestedModel: string | undefined;
  answer: AnswerProgress;
  signal: AbortSignal;
  /** What ended the request with an error; undefined when there was none. */
  failure: unknown;
}

/** Records a request that has ended: the answer, or, where no upstream was called, the refusal. */
export function recordAnswer(recorder: UsageRecorder, ended: EndedRequest): void {
  const { answer, signal } = ended;
  const owner = userOwner(ended.principal.user.id);
  if (answer.attempts.length === 0) {
    if (!signal.aborted) recorder.recordRefusal({ owner, code: toAppError(ended.failure).code });
    return;
  }
  recorder.record({
    requestId: ended.requestId,
    owner,
    tokenId: ended.principal.token?.id ?? null,
    surface: ended.surface.name,
    requestedModel: ended.requestedModel ?? null,
    end: answer.toEnd(signal),
    startedAt: answer.startedAt,
    latencyMs: answer.elapsedMs(),
    firstTokenMs: answer.firstTokenMs,
    usage: answer.usage,
    attempts: answer.attempts,
  });
}
