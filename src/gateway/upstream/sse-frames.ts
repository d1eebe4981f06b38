import type { Readable } from 'node:stream';
import { upstreamMalformed } from '../../lib/net/upstream-body.ts';

const LF = 0x0a;
const CR = 0x0d;
/** The longest blank line is CR LF CR LF, so its first 3 bytes can be at the end of the previous chunk. */
const OVERLAP_BYTES = 3;
const INITIAL_CAPACITY = 1024;

/**
 * Splits a stream of server-sent events into complete frames. The bytes stay unchanged, blank line included.
 * An incomplete frame is held back, so that an error event never follows half a frame. Bytes without a final blank
 * line come last, when the stream ends cleanly. Each byte is read once; time and memory are linear in the number of
 * bytes for any chunk size.
 * @param maxFrameBytes a longer frame throws `upstream_malformed`.
 * Source of the grammar: WHATWG HTML, "Parsing an event stream" (LF, CRLF or CR end a line).
 */
export async function* readSseFrames(body: Readable, maxFrameBytes: number): AsyncGenerator<Buffer> {
  const pending = createByteBuffer();
  for await (const chunk of body as AsyncIterable<Buffer>) {
    const overlap = pending.tail(OVERLAP_BYTES);
    const end = lastFrameEnd(overlap.length === 0 ? chunk : Buffer.concat([overlap, chunk])) - overlap.length;
    if (end > 0) yield pending.takeAll(chunk.subarray(0, end));
    pending.append(chunk.subarray(Math.max(end, 0)));
    if (pending.length > maxFrameBytes)
      throw upstreamMalformed('An event of the provider exceeds the size limit.');
  }
  if (pending.length > 0) yield pending.takeAll(Buffer.alloc(0));
}

/** The offset after the last blank line; 0 when there is none. */
function lastFrameEnd(bytes: Buffer): number {
  for (let at = bytes.length; at > 1; at -= 1) {
    const last = bytes[at - 1];
    if (last !== LF && last !== CR) continue;
    const before = bytes[at - 2];
    if (last === LF && (before === LF || (before === CR && bytes[at - 3] === LF))) return at;
    if (last === CR && before === CR) return at;
  }
  return 0;
}

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

/** Two line ends: LF, CRLF or CR. A CRLF is one of them, never two. */
const BLANK_LINE = /(?:\r\n|\r(?!\n)|\n){2}/g;

/** Splits frames into events. The bytes of all events are the bytes of the frames. */
export function parseSseEvents(frames: Buffer): SseEvent[] {
  // One character for each byte, so that offsets of the text are offsets of the bytes.
  const text = frames.toString('latin1');
  const events: SseEvent[] = [];
  let start = 0;
  for (const { index, 0: blankLine } of text.matchAll(BLANK_LINE)) {
    const end = index + blankLine.length;
    events.push(parseSseEvent(frames.subarray(start, end), true));
    start = end;
  }
  if (start < frames.length) events.push(parseSseEvent(frames.subarray(start), false));
  return events;
}

function parseSseEvent(bytes: Buffer, isComplete: boolean): SseEvent {
  const data: string[] = [];
  const otherLines: string[] = [];
  let type = '';
  for (const line of bytes
    .toString('utf8')
    .replace(/^\uFEFF/, '')
    .split(/\r\n|\n|\r/)) {
    const { name, value } = parseSseField(line);
    if (name === 'data') data.push(value);
    else if (line !== '') otherLines.push(line);
    if (name === 'event') type = value;
  }
  return { bytes, isComplete, type, data: data.length === 0 ? undefined : data.join('\n'), otherLines };
}

/** The name is `''` for a comment. */
function parseSseField(line: string): { name: string; value: string } {
  const colon = line.indexOf(':');
  if (colon < 0) return { name: line, value: '' };
  return { name: line.slice(0, colon), value: line.slice(colon + 1).replace(/^ /, '') };
}

/** A growing buffer for bytes that do not form a complete frame yet. */
interface ByteBuffer {
  readonly length: number;
  /** At most the last `count` bytes. The slice is valid until the next call. */
  tail(count: number): Buffer;
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
    tail: (count) => buffer.subarray(Math.max(0, length - count), length),
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
