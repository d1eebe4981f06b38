import { isAppError, type ErrorCode } from '../lib/errors.ts';
import type { Redactor } from '../lib/redact.ts';
import type { AnswerEnd, AttemptRecord, TokenUsage } from '../usage/service.ts';
import type { Surface } from './surface.ts';
import { NO_USAGE } from './token-usage.ts';
import type { ClassifiedResponse } from './upstream/response.ts';
import type { Receipt } from './upstream/response-headers.ts';

/** See `SendOutcome`. */
type Outcome = 'whole' | Exclude<AnswerEnd, 'cancelled'>;

/** What the ledger records of a request, collected while it is served. */
export interface AnswerProgress {
  readonly attempts: readonly AttemptRecord[];
  readonly firstTokenMs: number | null;
  readonly usage: TokenUsage;
  /** Milliseconds since the request began. */
  elapsedMs(): number;
  readonly startedAt: Date;
  /** Call when the request was changed to ask for the usage of its stream: the client does not receive that event. */
  hideUsageEvent(): void;
  beginAttempt(receipt: Receipt): void;
  /** Ends the last attempt with a status of the upstream. The attempt of a stream ends with the stream. */
  endAttempt(response: Pick<ClassifiedResponse, 'status'>): void;
  /** Ends the last attempt without an answer, or with a part of one. */
  failAttempt(error: unknown, signal: AbortSignal): void;
  /** Call before a response is sent: an upstream could name the secret of the call as its model. */
  beginAnswer(redact: Redactor): void;
  /** Reads the usage of a complete response. */
  readResponse(usage: TokenUsage): void;
  /**
   * Reads an event of a stream.
   * @returns false when the client does not receive the event.
   */
  readEvent(value: unknown): boolean;
  /** Call when the answer was sent. */
  endAnswer(kind: ClassifiedResponse['kind'], outcome: Outcome): void;
  /** How the answer ended; the signal tells an answer that was cut by the client or by this server. */
  toEnd(signal: AbortSignal): AnswerEnd;
}

export function createAnswerProgress({ usage: protocol }: Pick<Surface, 'usage'>): AnswerProgress {
  const startedAt = new Date();
  const startedMs = performance.now();
  const attempts: AttemptRecord[] = [];
  const reader = protocol.createReader();
  let whole: TokenUsage | undefined;
  let hasEvents = false;
  let isUsageEventHidden = false;
  let firstTokenMs: number | null = null;
  let end: AnswerEnd | undefined;
  let attemptMs = startedMs;
  let redact: Redactor | undefined;
  const elapsedMs = () => Math.round(performance.now() - startedMs);

  /** Members of the last attempt that are known by now. */
  function update(members: Partial<AttemptRecord>): void {
    const last = attempts.at(-1);
    if (last !== undefined)
      Object.assign(last, members, { durationMs: Math.round(performance.now() - attemptMs) });
  }

  return {
    attempts,
    startedAt,
    elapsedMs,
    get firstTokenMs() {
      return firstTokenMs;
    },
    get usage() {
      const usage = whole ?? (hasEvents ? reader.read() : NO_USAGE);
      const { servedModel } = usage;
      const isClean = servedModel === null || redact?.(servedModel) === servedModel;
      return isClean ? usage : { ...usage, servedModel: null };
    },
    hideUsageEvent() {
      isUsageEventHidden = true;
    },
    beginAttempt(receipt) {
      attemptMs = performance.now();
      attempts.push(toAttempt(receipt));
    },
    endAttempt: ({ status }) => {
      update({ status });
    },
    failAttempt(error, signal) {
      update({ fault: toFault(error, signal) });
    },
    beginAnswer(redactor) {
      redact = redactor;
    },
    readResponse(read) {
      whole = read;
    },
    readEvent(value) {
      hasEvents = true;
      reader.add(value);
      if (firstTokenMs === null && protocol.hasOutput(value)) firstTokenMs = elapsedMs();
      return !(isUsageEventHidden && protocol.streamRequest?.isUsageOnly(value) === true);
    },
    endAnswer(kind, outcome) {
      end = toAnswerEnd(kind, outcome);
      if (end === 'incomplete') update({ fault: 'upstream_incomplete' });
      else if (kind === 'stream') update({ fault: end === 'failed' ? 'stream_failed' : null });
    },
    toEnd(signal) {
      if (end === 'done') return end;
      return signal.aborted ? 'cancelled' : (end ?? 'failed');
    },
  };
}

function toAttempt({ keyId, scope: keyScope, provider, endpointSlug, model }: Receipt): AttemptRecord {
  return {
    ...{ keyId, keyScope, provider, endpointSlug, model },
    ...{ status: null, fault: null, startedAt: new Date(), durationMs: 0 },
  };
}

function toFault(error: unknown, signal: AbortSignal): ErrorCode | 'cancelled' {
  if (signal.aborted) return 'cancelled';
  return isAppError(error) ? error.code : 'internal_error';
}

function toAnswerEnd(kind: ClassifiedResponse['kind'], outcome: Outcome): AnswerEnd {
  if (kind === 'error') return 'failed';
  return outcome === 'whole' ? 'done' : outcome;
}
