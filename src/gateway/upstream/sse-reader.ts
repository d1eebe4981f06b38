import { setImmediate } from 'node:timers/promises';
import { upstreamMalformed } from '../../lib/net/upstream-body.ts';

const LF = 0x0a;
const CR = 0x0d;
const INITIAL_CAPACITY = 1024;
/** Other requests proceed after this many events that arrived together. */
const EVENTS_PER_STEP = 256;
/** An event of the protocol has a few lines. */
const MAX_LINES = 1_000;

/** A server-sent event. */
export interface SseEvent {
  /** All bytes of the event, blank line included. */
  bytes: Buffer;
  /** True when a blank line ends the event. */
  isComplete: boolean;
  /** The last value of the field `event`; `''` when there is none. */
  type: string;
  /** Undefined when the event has no field `data`, e.g. a comment. */
  data: string | undefined;
  /** Comments and all fields but `data`. */
  otherLines: readonly string[];
}

export interface SseLimits {
  eventBytes: number;
  streamBytes: number;
}

/**
 * Reads server-sent events in steps of a bounded number of events. The bytes of an event stay unchanged; blank lines
 * between events are left out. An incomplete event is held back, so that an error event never follows half an event.
 * Bytes without a final blank line come last, when the body ends. Each byte is read twice at most; time and
 * memory are linear in the number of bytes for any chunk size.
 * @param onBytes receives the number of bytes of each chunk; what it throws ends the reading.
 * @throws AppError `upstream_malformed` when the stream exceeds a limit.
 * Source of the grammar: WHATWG HTML, "Parsing an event stream" (LF, CRLF or CR end a line).
 */
export async function* readSseEvents(
  body: AsyncIterable<Buffer>,
  limits: SseLimits,
  onBytes: (bytes: number) => void = () => undefined,
): AsyncGenerator<SseEvent[]> {
  const splitter = createSplitter(limits.eventBytes);
  let total = 0;
  for await (const chunk of body) {
    total += chunk.length;
    if (total > limits.streamBytes)
      throw upstreamMalformed('The response of the provider exceeds the size limit.');
    onBytes(chunk.length);
    yield* inSteps(splitter.split(chunk));
  }
  yield* inSteps(splitter.end());
}

async function* inSteps(events: Iterable<SseEvent>): AsyncGenerator<SseEvent[]> {
  let step: SseEvent[] = [];
  for (const event of events) {
    step.push(event);
    if (step.length < EVENTS_PER_STEP) continue;
    yield step;
    step = [];
    await setImmediate();
  }
  if (step.length > 0) yield step;
}

interface Splitter {
  /** The events that end in this chunk. Each is found when it is asked for. */
  split(chunk: Buffer): Iterable<SseEvent>;
  /** The events that are left when the stream ends. */
  end(): Iterable<SseEvent>;
}

function createSplitter(maxEventBytes: number): Splitter {
  const pending = createByteBuffer();
  let isLineEmpty = true;
  let lineCount = 0;
  let isCrHeld = false;

  function* splitLines(bytes: Buffer): Generator<SseEvent> {
    let eventStart = 0;
    for (let at = 0; at < bytes.length;) {
      const lineEnd = findLineEnd(bytes, at);
      isLineEmpty &&= lineEnd === at;
      if (lineEnd === bytes.length) break;
      at = skipLineEnd(bytes, lineEnd);
      if (isLineEmpty) {
        if (lineCount > 0) yield parseSseEvent(pending.takeAll(bytes.subarray(eventStart, at)), true);
        eventStart = at;
        lineCount = 0;
      } else if ((lineCount += 1) > MAX_LINES) {
        throw upstreamMalformed('An event of the provider has too many lines.');
      }
      isLineEmpty = true;
    }
    pending.append(bytes.subarray(eventStart));
    if (pending.length > maxEventBytes)
      throw upstreamMalformed('An event of the provider exceeds the size limit.');
  }

  return {
    split(chunk) {
      const bytes = isCrHeld ? Buffer.concat([Buffer.of(CR), chunk]) : chunk;
      // Whether a last CR is a line end or half of one is known with the next byte.
      isCrHeld = bytes.at(-1) === CR;
      return splitLines(isCrHeld ? bytes.subarray(0, -1) : bytes);
    },
    *end() {
      if (isCrHeld) yield* splitLines(Buffer.of(CR));
      if (pending.length > 0) yield parseSseEvent(pending.takeAll(Buffer.alloc(0)), false);
    },
  };
}

/** Short lines are read byte by byte; in longer ones the native search is used for parts of this size. */
const BYTES_BEFORE_SEARCH = 64;
const BYTES_PER_SEARCH = 16 * 1024;

/** The offset of the next line end; the length when there is none. */
function findLineEnd(bytes: Buffer, start: number): number {
  let at = start;
  for (const searchFrom = start + BYTES_BEFORE_SEARCH; at < searchFrom; at += 1)
    if (at >= bytes.length || bytes[at] === LF || bytes[at] === CR) return at;
  for (; at < bytes.length; at += BYTES_PER_SEARCH) {
    const part = bytes.subarray(at, at + BYTES_PER_SEARCH);
    const found = [part.indexOf(LF), part.indexOf(CR)].filter((offset) => offset >= 0);
    if (found.length > 0) return at + Math.min(...found);
  }
  return bytes.length;
}

/** The offset after a line end: LF, CRLF or CR. */
function skipLineEnd(bytes: Buffer, lineEnd: number): number {
  return lineEnd + (bytes[lineEnd] === CR && bytes[lineEnd + 1] === LF ? 2 : 1);
}

function parseSseEvent(bytes: Buffer, isComplete: boolean): SseEvent {
  const data: string[] = [];
  const otherLines: string[] = [];
  let type = '';
  for (let at = 0; at < bytes.length;) {
    const lineEnd = findLineEnd(bytes, at);
    const text = bytes.toString('utf8', at, lineEnd);
    const line = at === 0 ? text.replace(/^\uFEFF/, '') : text;
    const { name, value } = parseSseField(line);
    if (name === 'data') data.push(value);
    else if (line !== '') otherLines.push(line);
    if (name === 'event') type = value;
    at = skipLineEnd(bytes, lineEnd);
  }
  return { bytes, isComplete, type, data: data.length === 0 ? undefined : data.join('\n'), otherLines };
}

/** The name is `''` for a comment. */
function parseSseField(line: string): { name: string; value: string } {
  const colon = line.indexOf(':');
  if (colon < 0) return { name: line, value: '' };
  return { name: line.slice(0, colon), value: line.slice(colon + 1).replace(/^ /, '') };
}

/** A growing buffer for bytes that do not form a complete event yet. */
interface ByteBuffer {
  readonly length: number;
  append(chunk: Buffer): void;
  /** Returns all bytes followed by `end` as a separate buffer, and empties this one. */
  takeAll(end: Buffer): Buffer;
}

/**
 * Chunks are copied into one buffer that grows by doubling. Keeping the chunks themselves would retain the network
 * buffer behind each of them, and a million one-byte chunks would be concatenated again and again.
 */
function createByteBuffer(): ByteBuffer {
  let buffer: Buffer = Buffer.alloc(0);
  let length = 0;

  function grow(needed: number): void {
    const larger = Buffer.allocUnsafe(Math.max(needed, 2 * buffer.length, INITIAL_CAPACITY));
    buffer.copy(larger, 0, 0, length);
    buffer = larger;
  }

  return {
    get length() {
      return length;
    },
    append(chunk) {
      if (length + chunk.length > buffer.length) grow(length + chunk.length);
      chunk.copy(buffer, length);
      length += chunk.length;
    },
    takeAll(end) {
      const whole = length === 0 ? end : Buffer.concat([buffer.subarray(0, length), end]);
      // The capacity that one long event needed is not kept for the rest of the stream.
      buffer = Buffer.alloc(0);
      length = 0;
      return whole;
    },
  };
}
