import { toSseEvent } from '../../http/sse.ts';
import { parseJson } from '../../lib/json.ts';
import { upstreamMalformed } from '../../lib/net/upstream-body.ts';
import { toShownError, type ErrorBodyOptions } from './error-body.ts';
import { MAX_ERROR_BYTES, protocolMismatch } from './response.ts';
import { parseSseEvents, type SseEvent } from './sse-frames.ts';

export interface StreamEventOptions extends ErrorBodyOptions {
  isPublic: boolean;
  /** Number of choices that the client asked for. */
  choiceCount: number;
}

export interface CheckedEvents {
  bytes: Buffer;
  /** True when the frames contain the last event of the stream. Everything after it is dropped. */
  isDone: boolean;
}

/** Checks the events of one stream before they are sent. */
export interface StreamCheck {
  /**
   * An event with a successful response of the protocol keeps its bytes. Any other event is parsed, redacted and
   * serialized again, so that no error passes as bytes. From a private address, only events of the protocol pass,
   * without comments and other fields.
   * @throws AppError `upstream_malformed` for an event that may not be shown.
   */
  check(frames: Buffer): CheckedEvents;
  /** True when the upstream reported an error in the stream. */
  hasFailed(): boolean;
  /** True when the events contain the whole answer, whether or not the protocol's last event was among them. */
  isFinished(): boolean;
}

export function createStreamCheck(options: StreamEventOptions): StreamCheck {
  const { surface, isPublic } = options;
  const progress = surface.createProgress(options.choiceCount);
  let hasFailed = false;
  let isCut = false;

  function toClientBytes(event: SseEvent): Buffer {
    const { data, isComplete } = event;
    if (data === undefined) return isPublic && isCleanOutsideData(event, options) ? event.bytes : NOTHING;
    const value = parseJson(data);
    if (surface.isResponse(value, isPublic) && !surface.hasError(value) && event.type !== 'error') {
      progress.add(value);
      return toSuccessBytes(event, options);
    }
    if (!isComplete && value === undefined) {
      isCut = true;
      return NOTHING;
    }
    hasFailed ||= event.type === 'error' || surface.hasError(value) || surface.findError(value) !== undefined;
    return Buffer.from(toErrorEvent(event, data, value, options));
  }

  return {
    check(frames) {
      const parts: Buffer[] = [];
      for (const event of parseSseEvents(frames)) {
        const isDone = event.data?.trim() === surface.endOfStream;
        parts.push(isDone ? toSuccessBytes(event, options) : toClientBytes(event));
        if (isDone) return { bytes: Buffer.concat(parts), isDone };
      }
      return { bytes: Buffer.concat(parts), isDone: false };
    },
    hasFailed: () => hasFailed,
    isFinished: () => progress.isFinished() && !isCut,
  };
}

const NOTHING = Buffer.alloc(0);

function toSuccessBytes(event: SseEvent, options: StreamEventOptions): Buffer {
  const { bytes, data = '', isComplete } = event;
  if (options.isPublic && isComplete && isCleanOutsideData(event, options)) return bytes;
  return Buffer.from(toSseEvent(data, options.isPublic ? toSafeType(event, options) : ''));
}

/** Longer comments and fields are dropped, since searching them would occupy the process for too long. */
const MAX_OTHER_LENGTH = 16 * 1024;

/** Comments and other fields are no part of the response, so redacting them reveals nothing. */
function isCleanOutsideData({ otherLines }: SseEvent, { redact }: StreamEventOptions): boolean {
  if (otherLines.length === 0) return true;
  const text = otherLines.join('\n');
  return text.length <= MAX_OTHER_LENGTH && redact(text) === text;
}

function toErrorEvent(event: SseEvent, data: string, value: unknown, options: StreamEventOptions): string {
  const { isPublic, redact, surface } = options;
  if (data.length > MAX_ERROR_BYTES)
    throw upstreamMalformed('An error event of the provider exceeds the size limit.');
  if (value === undefined && isPublic) return toSseEvent(redact(data), toSafeType(event, options));
  const shown = toShownError(value, isPublic, options);
  if (shown === undefined) throw protocolMismatch(surface);
  return toSseEvent(JSON.stringify(shown), isPublic ? toSafeType(event, options) : '');
}

const SAFE_TYPE = /^[\w.-]{1,64}$/;

function toSafeType({ type }: SseEvent, { redact }: StreamEventOptions): string {
  return SAFE_TYPE.test(type) && redact(type) === type ? type : '';
}
