import type { OutputStream } from '../runners/runner.ts';
import { countOutputBytes, type ByteCounts, type NumberedEvent } from './events.ts';

/** An event with its position in the output of its run. */
export interface BufferedEvent extends NumberedEvent {
  /** Output bytes of the run before this event. */
  bytesBefore: ByteCounts;
  /** Number of the previous output event of the same stream; 0 for the first one, and for other events. */
  previousSeq: number;
}

/** The most recent of the events that are pushed, in order. */
export interface EventWindow {
  push(event: BufferedEvent): void;
  /** The first event after a number. */
  after(seq: number): BufferedEvent | undefined;
  /** The events between two numbers. */
  list(afterSeq: number, untilSeq: number): BufferedEvent[];
  /** The first output of a stream after a number. */
  findOutput(stream: OutputStream, afterSeq: number): BufferedEvent | undefined;
  /** The exit, if it is in the window. */
  listExits(): BufferedEvent[];
}

/**
 * Whole events are dropped, the oldest first.
 * @param max at least so many of the latest bytes are kept, unless there are more events.
 */
export function createEventWindow(max: { bytes: number; events: number }): EventWindow {
  const events: BufferedEvent[] = [];
  let bytes = 0;

  function canDrop([oldest]: readonly BufferedEvent[]): boolean {
    if (oldest === undefined) return false;
    return bytes - countBytes(oldest) >= max.bytes || events.length > max.events;
  }

  return {
    push(event) {
      events.push(event);
      bytes += countBytes(event);
      while (canDrop(events)) {
        const dropped = events.shift();
        if (dropped !== undefined) bytes -= countBytes(dropped);
      }
    },
    after: (seq) => events[findIndexAfter(events, seq)],
    list: (afterSeq, untilSeq) =>
      events.slice(findIndexAfter(events, afterSeq), findIndexAfter(events, untilSeq - 1)),
    findOutput: (stream, afterSeq) =>
      events
        .slice(findIndexAfter(events, afterSeq))
        .find(({ event }) => event.type === 'output' && event.stream === stream),
    listExits: () => events.slice(-1).filter(({ event }) => event.type === 'exit'),
  };
}

/** Index of the first event after a number, by binary search; their number when there is none. */
function findIndexAfter(events: readonly NumberedEvent[], seq: number): number {
  let [start, end] = [0, events.length];
  while (start < end) {
    const middle = (start + end) >>> 1;
    if ((events[middle]?.seq ?? Infinity) > seq) end = middle;
    else start = middle + 1;
  }
  return start;
}

function countBytes({ event }: NumberedEvent): number {
  const { stdout, stderr } = countOutputBytes(event);
  return stdout + stderr;
}
