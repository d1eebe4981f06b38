import {
  addByteCounts,
  NO_BYTES,
  countOutputBytes,
  type NumberedEvent,
  type ViewerEvent,
  type ByteCounts,
} from './events.ts';

/** The events of a run of this process, in memory: the head, which is also stored, and the most recent ones (tail). */
export interface EventBuffer {
  /** Numbers the event and wakes the subscribers. An exit is the last event. */
  append(event: ViewerEvent): void;
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

  const next = (afterSeq: number) => head[afterSeq] ?? tail.after(afterSeq);

  for (const { event } of storedEvents) add(event);
  return {
    append(event) {
      add(event);
      wakeAll();
    },
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
