import { toSseEvent } from '../../http/sse.ts';
import { parseJson } from '../../lib/json.ts';
import { upstreamMalformed } from '../../lib/net/upstream-body.ts';
import { isObject } from '../../providers/provider.ts';
import type { AnswerProgress } from '../answer-progress.ts';
import type { StreamProgress, Surface } from '../surface.ts';
import { MAX_ERROR_BYTES, protocolMismatch, toShownError, type ErrorBodyOptions } from './response.ts';
import type { SseEvent } from './sse-reader.ts';

export interface StreamEventOptions extends ErrorBodyOptions {
  isPublic: boolean;
  progress: StreamProgress;
  /** Reads each event of the response, and says which the client does not receive. */
  answer: Pick<AnswerProgress, 'readEvent'>;
}

export interface CheckedEvents {
  bytes: Buffer;
  /** True when the stream ends here: with the last event of the protocol, or with an error. */
  isDone: boolean;
}

/** Checks the events of one stream before they are sent. */
export interface StreamCheck {
  /**
   * An event with a successful response of the protocol keeps its bytes. Any other event is parsed, redacted and
   * serialized again, so that no error passes as bytes. From a private address, only events of the protocol pass,
   * without comments and other fields. Everything after the last event of the protocol, or after an error, is dropped.
   * @throws AppError `upstream_malformed` for an event that may not be shown.
   */
  check(events: readonly SseEvent[]): CheckedEvents;
  /** True when the upstream reported an error in the stream. */
  hasFailed(): boolean;
  /** True when the events contain the whole answer, whether or not the protocol's last event was among them. */
  isFinished(): boolean;
}

/** Of all comments and fields but `data` in one event, and in one stream. Searching more would take too long. */
const MAX_OTHER_LENGTH = { inEvent: 16 * 1024, inStream: 1024 * 1024 };
/** Of all events in one stream that are no successful response. Redacting them takes long as well. */
const MAX_REDACTED_LENGTH = 1024 * 1024;

export function createStreamCheck(options: StreamEventOptions): StreamCheck {
  const { surface, isPublic, redact, progress, answer } = options;
  let otherLength = 0;
  let redactedLength = 0;
  let hasFailed = false;
  let isCut = false;

  /** Comments and other fields are no part of the response, so redacting them reveals nothing. */
  function isCleanOutsideData({ otherLines }: SseEvent): boolean {
    if (otherLines.length === 0) return true;
    const text = otherLines.join('\n');
    otherLength += text.length;
    if (text.length > MAX_OTHER_LENGTH.inEvent || otherLength > MAX_OTHER_LENGTH.inStream) return false;
    return redact(text) === text;
  }

  function toSuccessBytes(event: SseEvent, value?: unknown): Buffer {
    const { bytes, data = '', isComplete } = event;
    if (isPublic && isComplete && isCleanOutsideData(event)) return bytes;
    return Buffer.from(toSseEvent(data, isPublic ? toSafeType(event, options) : findOwnType(value, surface)));
  }

  function toClientBytes(event: SseEvent): Buffer {
    const { data, isComplete, otherLines } = event;
    if (data === undefined && !isComplete) {
      // Half an event would become one with the event that follows. It may have been one with data.
      isCut ||= otherLines.some((line) => !line.startsWith(':'));
      return NOTHING;
    }
    if (data === undefined) return isPublic && isCleanOutsideData(event) ? event.bytes : NOTHING;
    const value = parseJson(data);
    const isError = isErrorType(event) || surface.hasError(value);
    if (!isError && surface.isResponse(value, isPublic)) {
      progress.add(value);
      return answer.readEvent(value) ? toSuccessBytes(event, value) : NOTHING;
    }
    if (!isComplete && value === undefined) {
      isCut ||= !isBeginningOf(surface.endOfStream, data.trim());
      return NOTHING;
    }
    redactedLength += event.bytes.length;
    if (data.length > MAX_ERROR_BYTES || redactedLength > MAX_REDACTED_LENGTH)
      throw upstreamMalformed('The error events of the provider exceed the size limit.');
    hasFailed = isError || surface.findError(value) !== undefined;
    return Buffer.from(toErrorEvent(event, { data, value, isFailure: hasFailed }, options));
  }

  return {
    check(events) {
      const parts: Buffer[] = [];
      for (const event of events) {
        const isLast = event.data?.trim() === surface.endOfStream;
        parts.push(isLast ? toSuccessBytes(event) : toClientBytes(event));
        const isEnded = surface.endOfStream === null && progress.isFinished();
        if (isLast || isEnded || hasFailed) return { bytes: Buffer.concat(parts), isDone: true };
      }
      return { bytes: Buffer.concat(parts), isDone: false };
    },
    hasFailed: () => hasFailed,
    isFinished: () => progress.isFinished() && !isCut,
  };
}

const NOTHING = Buffer.alloc(0);

function isBeginningOf(text: string | null, beginning: string): boolean {
  return beginning !== '' && text?.startsWith(beginning) === true;
}

/** Servers write it in any letter case, and some clients trim it. */
function isErrorType({ type }: SseEvent): boolean {
  return type.trim().toLowerCase() === 'error';
}

/** @param isFailure true when the event ends the stream: its type is then that of the protocol's errors. */
function toErrorEvent(
  event: SseEvent,
  { data, value, isFailure }: { data: string; value: unknown; isFailure: boolean },
  options: StreamEventOptions,
): string {
  const { isPublic, redact, surface } = options;
  const text = value === undefined && isPublic ? redact(data) : undefined;
  const shown = text ?? toShownError(value, isPublic, options);
  if (shown === undefined) throw protocolMismatch(surface);
  if (isFailure && surface.hasEventTypes) return surface.toErrorEvent(shown);
  return toSseEvent(text ?? JSON.stringify(shown), isPublic ? toSafeType(event, options) : '');
}

const SAFE_TYPE = /^[\w.-]{1,64}$/;

/** The type of an event that is a response of the protocol. */
function findOwnType(value: unknown, { hasEventTypes }: Surface): string {
  const type = hasEventTypes && isObject(value) ? value['type'] : undefined;
  return typeof type === 'string' && SAFE_TYPE.test(type) ? type : '';
}

function toSafeType(event: SseEvent, { redact }: StreamEventOptions): string {
  const type = event.type.trim();
  return SAFE_TYPE.test(type) && redact(type) === type ? type : '';
}
