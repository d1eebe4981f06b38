import { isUtf8 } from 'node:buffer';
import type { OutputStream } from '../runners/runner.ts';
import {
  addByteCounts,
  NO_BYTES,
  countOutputBytes,
  type NumberedEvent,
  type OutputEvent,
  type ViewerEvent,
  type ByteCounts,
} from './events.ts';

/** The events of a run of this process, in memory: the head, which is also stored, and the most recent ones (tail). */
export interface EventBuffer {
  /** Numbers the event and wakes the subscribers. Pending output comes first. An exit is the last event. */
  append(event: ViewerEvent): void;
  /** Appends output in events of a suitable size, at once or within {@link FLUSH_INTERVAL_MS}. */
  appendOutput(stream: OutputStream, bytes: Uint8Array): void;
  /** Appends the pending output, also an incomplete character. */
  endOutput(): void;
  /**
   * Yields the events after a number, then new ones. A slow subscriber gets `truncated` for output that has left the
   * buffer. Ends after the exit, at `signal`, or when the buffer is closed without an exit.
   */
  subscribe(afterSeq: number, signal: AbortSignal): AsyncGenerator<NumberedEvent, void>;
  /** The events of the head after a number. These are stored. */
  head(afterSeq: number): readonly NumberedEvent[];
  /** Resolves when the head has an event after a number, or the buffer has ended. */
  headGrown(afterSeq: number): Promise<void>;
  /** Output bytes that are not in the head. */
  bytesBeyondHead(): ByteCounts;
  /** Ends the buffer. Without an exit, another process continues the run. */
  close(): void;
  readonly total: ByteCounts;
  readonly lastSeq: number;
  readonly hasEnded: boolean;
}

interface BufferedEvent extends NumberedEvent {
  /** Output bytes of the run before this event. */
  bytesBefore: ByteCounts;
}

/** Limits of the head: bytes of output, and number of events. */
const MAX_HEAD = { bytes: 1024 * 1024, events: 16_384 };
/** Limits of the tail, for viewers that are behind. */
const MAX_TAIL = { bytes: 4 * 1024 * 1024, events: 16_384 };

/** @param storedEvents the events that a previous holder of the run has stored. */
export function createEventBuffer(storedEvents: readonly NumberedEvent[] = []): EventBuffer {
  const head: BufferedEvent[] = [];
  const tail = createTail();
  let isHeadFull = false;
  let total = NO_BYTES;
  let headBytes = NO_BYTES;
  let lastSeq = 0;
  let hasEnded = false;
  let wake = Promise.withResolvers<undefined>();

  function add(event: ViewerEvent): void {
    lastSeq += 1;
    const entry = { seq: lastSeq, event, bytesBefore: total };
    const added = countOutputBytes(event);
    total = addByteCounts(total, added);
    isHeadFull ||=
      bytesOf(addByteCounts(headBytes, added)) > MAX_HEAD.bytes || head.length >= MAX_HEAD.events;
    if (isHeadFull) tail.push(entry);
    else {
      head.push(entry);
      headBytes = addByteCounts(headBytes, added);
    }
    hasEnded = event.type === 'exit';
  }

  function wakeAll(): void {
    wake.resolve(undefined);
    wake = Promise.withResolvers();
  }

  const output = createOutputChunker((event) => {
    add(event);
    wakeAll();
  });

  const next = (afterSeq: number) => head[afterSeq] ?? tail.after(afterSeq);

  for (const { event } of storedEvents) add(event);
  return {
    append(event) {
      output.flush();
      add(event);
      wakeAll();
    },
    appendOutput: output.write,
    endOutput: output.end,
    async *subscribe(afterSeq, signal) {
      let position: ReadPosition = { seq: afterSeq, bytesRead: undefined };
      signal.addEventListener('abort', wakeAll);
      try {
        while (!signal.aborted) {
          const entry = next(position.seq);
          if (entry !== undefined) {
            if (entry.seq > position.seq + 1) yield* truncatedBetween(position, entry, headBytes);
            yield { seq: entry.seq, event: entry.event };
            position = {
              seq: entry.seq,
              bytesRead: addByteCounts(entry.bytesBefore, countOutputBytes(entry.event)),
            };
          } else if (hasEnded) return;
          else await wake.promise;
        }
      } finally {
        signal.removeEventListener('abort', wakeAll);
      }
    },
    head: (afterSeq) => head.slice(afterSeq),
    async headGrown(afterSeq) {
      while (!hasEnded && head.length <= afterSeq) await wake.promise;
    },
    bytesBeyondHead: () => ({
      stdout: total.stdout - headBytes.stdout,
      stderr: total.stderr - headBytes.stderr,
    }),
    close() {
      hasEnded = true;
      wakeAll();
    },
    get total() {
      return total;
    },
    get lastSeq() {
      return lastSeq;
    },
    get hasEnded() {
      return hasEnded;
    },
  };
}

/** How far a subscriber has read: the last number, and the output bytes up to it; undefined for a resumed read. */
interface ReadPosition {
  seq: number;
  bytesRead: ByteCounts | undefined;
}

/**
 * `truncated` events for the gap before `until`, with the last numbers of the gap. For a resumed read, everything
 * beyond the head counts as dropped.
 */
function truncatedBetween(
  position: ReadPosition,
  until: BufferedEvent,
  headBytes: ByteCounts,
): NumberedEvent[] {
  const from = position.bytesRead ?? headBytes;
  const dropped = (['stdout', 'stderr'] as const)
    .map((stream) => ({ stream, droppedBytes: until.bytesBefore[stream] - from[stream] }))
    .filter(({ droppedBytes }) => droppedBytes > 0);
  return dropped.map((gap, index) => ({
    seq: Math.max(position.seq + 1, until.seq - dropped.length + index),
    event: { type: 'truncated', ...gap },
  }));
}

/** The most recent events within {@link MAX_TAIL}. */
function createTail() {
  const entries: BufferedEvent[] = [];
  let bytes = 0;
  return {
    push(entry: BufferedEvent): void {
      entries.push(entry);
      bytes += bytesOf(countOutputBytes(entry.event));
      while (bytes > MAX_TAIL.bytes || entries.length > MAX_TAIL.events) {
        const removed = entries.shift();
        if (removed !== undefined) bytes -= bytesOf(countOutputBytes(removed.event));
      }
    },
    after(seq: number): BufferedEvent | undefined {
      const oldest = entries[0];
      return oldest === undefined ? undefined : entries[Math.max(0, seq + 1 - oldest.seq)];
    },
  };
}

function bytesOf({ stdout, stderr }: ByteCounts): number {
  return stdout + stderr;
}

/** Combines the output bytes of a run into output events. */
interface OutputChunker {
  /** Emits the bytes at once or within {@link FLUSH_INTERVAL_MS}. */
  readonly write: (stream: OutputStream, bytes: Uint8Array) => void;
  /** Emits the pending bytes, except an incomplete character. */
  readonly flush: () => void;
  /** Emits all bytes, incomplete characters too. */
  readonly end: () => void;
}

/** Bytes are collected for this long, so that a program that writes single bytes does not cause one event each. */
const FLUSH_INTERVAL_MS = 8;
const MAX_CHUNK_BYTES = 64 * 1024;
const EMPTY = Buffer.alloc(0);

/**
 * For one run. The first bytes after an interval without output are emitted at once; bytes that follow within the
 * interval are collected. An incomplete UTF-8 character is held back, per stream. Bytes that are not UTF-8 are
 * emitted as base64.
 */
export function createOutputChunker(emit: (output: OutputEvent) => void): OutputChunker {
  const incomplete: Record<OutputStream, Buffer> = { stdout: EMPTY, stderr: EMPTY };
  let pending: { stream: OutputStream; chunks: Uint8Array[]; bytes: number } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let flushedAtMs = -Infinity;

  function emitBytes(stream: OutputStream, bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      const end = at + countCompleteBytes(bytes.subarray(at, at + MAX_CHUNK_BYTES));
      // Only an incomplete character is left: it is emitted as base64.
      const data = bytes.subarray(at, end > at ? end : bytes.length);
      emit({ type: 'output', stream, encoding: isUtf8(data) ? 'utf8' : 'base64', data });
      at += data.length;
    }
  }

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    if (pending === undefined) return;
    const { stream, chunks } = pending;
    pending = undefined;
    flushedAtMs = performance.now();
    const bytes = concatChunks(incomplete[stream], chunks);
    const completeBytes = countCompleteBytes(bytes);
    incomplete[stream] = bytes.subarray(completeBytes);
    emitBytes(stream, bytes.subarray(0, completeBytes));
  }

  return {
    write(stream, bytes) {
      if (bytes.length === 0) return;
      if (pending !== undefined && pending.stream !== stream) flush();
      pending ??= { stream, chunks: [], bytes: 0 };
      pending.chunks.push(bytes);
      pending.bytes += bytes.length;
      const delayMs = flushedAtMs + FLUSH_INTERVAL_MS - performance.now();
      if (delayMs <= 0 || pending.bytes >= MAX_CHUNK_BYTES) flush();
      else timer ??= setTimeout(flush, delayMs);
    },
    flush,
    end() {
      flush();
      for (const stream of ['stdout', 'stderr'] as const) {
        emitBytes(stream, incomplete[stream]);
        incomplete[stream] = EMPTY;
      }
    },
  };
}

/**
 * A single large chunk is not copied, since most output arrives in such chunks. A small one is copied into its own
 * memory: otherwise one byte would retain the whole network buffer, or Node's buffer pool.
 */
function concatChunks(incomplete: Buffer, chunks: readonly Uint8Array[]): Buffer {
  const [first] = chunks;
  const isSingle = incomplete.length === 0 && chunks.length === 1 && first !== undefined;
  if (isSingle && first.byteLength * 2 >= first.buffer.byteLength)
    return Buffer.from(first.buffer, first.byteOffset, first.byteLength);
  const parts = [incomplete, ...chunks];
  const all = Buffer.allocUnsafeSlow(parts.reduce((bytes, part) => bytes + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Number of bytes without an incomplete character at the end: at most 3 fewer than all. */
function countCompleteBytes(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back] ?? 0;
    if (byte >= 0xc0) return lengthByLeadByte(byte) > back ? bytes.length - back : bytes.length;
    if (byte < 0x80) return bytes.length;
  }
  return bytes.length;
}

/** Length of a character by its first byte: RFC 3629, section 3; 1 for a byte that begins no character. */
function lengthByLeadByte(byte: number): number {
  if (byte >= 0xf8) return 1;
  return byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
}
