import type { OutputStream } from '../runners/runner.ts';
import {
  addByteCounts,
  NO_BYTES,
  countOutputBytes,
  OUTPUT_STREAMS,
  type NumberedEvent,
  type ViewerEvent,
  type ByteCounts,
} from './events.ts';
import { createEventWindow, type BufferedEvent } from './event-window.ts';
import { createOutputChunker } from './output-chunker.ts';

/**
 * The events of a run of this process, in memory. Kept events, which are also stored, are the head (the first ones) and
 * the end of each stream, with one `truncated` between where output of the stream was dropped. Viewers that are behind
 * receive the recent events too.
 */
export interface EventBuffer {
  /** Numbers the event and wakes the subscribers. Pending output comes first. An exit is the last event. */
  append(event: ViewerEvent): void;
  /** Appends output in events of a suitable size, at once or within `FLUSH_INTERVAL_MS` of the chunker. */
  appendOutput(stream: OutputStream, bytes: Uint8Array): void;
  /** Appends the pending output, also an incomplete character. */
  endOutput(): void;
  /**
   * Yields the events after a number, then new ones. A slow subscriber gets `truncated` for output that has left the
   * buffer. Ends after the exit, at `signal`, or when the buffer is closed without an exit.
   */
  subscribe(afterSeq: number, signal: AbortSignal): AsyncGenerator<NumberedEvent, void>;
  /** The events of the head after a number. */
  head(afterSeq: number): readonly NumberedEvent[];
  /** Resolves when the head has an event after a number, or the buffer has ended. */
  headGrown(afterSeq: number): Promise<void>;
  /** The kept events after the head. They change with further output. */
  tail(): readonly NumberedEvent[];
  /** Resolves when the buffer has ended, or `signal` aborts. */
  ended(signal: AbortSignal): Promise<void>;
  /** Ends the buffer. Without an exit, another process continues the run. */
  close(): void;
  readonly total: ByteCounts;
  readonly lastSeq: number;
  readonly hasEnded: boolean;
}

const KIB = 1024;
const MAX_EVENTS = 16_384;
/** An event that begins within the limit belongs to the head. */
const MAX_HEAD = { bytes: 768 * KIB, events: MAX_EVENTS };
/** Of each stream: what a program prints last often explains its exit. */
const MAX_STREAM_END = { bytes: 128 * KIB, events: MAX_EVENTS / 4 };
/** For viewers that are behind. */
const MAX_RECENT = { bytes: 4 * 1024 * KIB, events: MAX_EVENTS };

/** @param storedEvents the events that a previous holder of the run has stored. */
export function createEventBuffer(storedEvents: readonly NumberedEvent[] = []): EventBuffer {
  const head: BufferedEvent[] = [];
  const recent = createEventWindow(MAX_RECENT);
  const streamEnds = {
    stdout: createEventWindow(MAX_STREAM_END),
    stderr: createEventWindow(MAX_STREAM_END),
  };
  const lastOutputSeq: Record<OutputStream, number> = { stdout: 0, stderr: 0 };
  let total = NO_BYTES;
  let headBytes = NO_BYTES;
  let lastSeq = 0;
  let hasEnded = false;
  let wake = Promise.withResolvers<undefined>();

  function add(event: ViewerEvent): void {
    lastSeq += 1;
    const previousSeq = event.type === 'output' ? lastOutputSeq[event.stream] : 0;
    const entry = { seq: lastSeq, event, bytesBefore: total, previousSeq };
    total = addByteCounts(total, countOutputBytes(event));
    // After the first event that is not in the head, none is.
    if (head.length === lastSeq - 1 && sum(headBytes) < MAX_HEAD.bytes && head.length < MAX_HEAD.events) {
      head.push(entry);
      headBytes = total;
    } else {
      recent.push(entry);
      if (event.type === 'output') streamEnds[event.stream].push(entry);
    }
    if (event.type === 'output') lastOutputSeq[event.stream] = lastSeq;
    hasEnded = event.type === 'exit';
  }

  function wakeAll(): void {
    wake.resolve(undefined);
    wake = Promise.withResolvers();
  }

  /** Resolves when a condition holds or `signal` aborts. */
  async function waitUntil(isTrue: () => boolean, signal?: AbortSignal): Promise<void> {
    signal?.addEventListener('abort', wakeAll);
    while (!isTrue() && signal?.aborted !== true) await wake.promise;
    signal?.removeEventListener('abort', wakeAll);
  }

  const output = createOutputChunker((event) => {
    add(event);
    wakeAll();
  });

  /** The kept events in a range, and `truncated` for the output of each stream that is missing there. */
  function listKeptBetween({ seq, bytesRead }: ReadPosition, untilSeq: number): NumberedEvent[] {
    const events = OUTPUT_STREAMS.flatMap((stream) => {
      const kept = streamEnds[stream].list(seq, untilSeq);
      const next = kept[0] ?? recent.findOutput(stream, seq);
      if (next === undefined || next.previousSeq <= seq) return kept;
      const droppedBytes = next.bytesBefore[stream] - (bytesRead ?? headBytes)[stream];
      return [
        { seq: next.previousSeq, event: { type: 'truncated' as const, stream, droppedBytes } },
        ...kept,
      ];
    });
    return events.sort((a, b) => a.seq - b.seq).map(toNumbered);
  }

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
      while (!signal.aborted) {
        const { seq } = position;
        const entry = head[seq] ?? recent.after(seq);
        if (entry === undefined) {
          if (hasEnded) return;
          await waitUntil(() => hasEnded || lastSeq > seq, signal);
        } else if (entry.seq > seq + 1) {
          yield* listKeptBetween(position, entry.seq);
          position = { seq: entry.seq - 1, bytesRead: entry.bytesBefore };
        } else {
          yield toNumbered(entry);
          position = {
            seq: entry.seq,
            bytesRead: addByteCounts(entry.bytesBefore, countOutputBytes(entry.event)),
          };
        }
      }
    },
    head: (afterSeq) => head.slice(afterSeq).map(toNumbered),
    headGrown: (afterSeq) => waitUntil(() => hasEnded || head.length > afterSeq),
    tail() {
      const kept = listKeptBetween({ seq: head.length, bytesRead: headBytes }, Infinity);
      return [...kept, ...recent.listExits().map(toNumbered)];
    },
    ended: (signal) => waitUntil(() => hasEnded, signal),
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

function toNumbered({ seq, event }: NumberedEvent): NumberedEvent {
  return { seq, event };
}

function sum({ stdout, stderr }: ByteCounts): number {
  return stdout + stderr;
}
