import {
  addByteCounts,
  NO_BYTES,
  countOutputBytes,
  type NumberedEvent,
  type ViewerEvent,
  type ByteCounts,
} from './events.ts';

/** The news of a run that this process has, in memory: the beginning, which is stored as well, and the latest. */
export interface EventBuffer {
  /** Numbers the news and tells whoever follows. An exit is the last. */
  append(news: ViewerEvent): void;
  /**
   * Yields what comes after a number, then what comes. Whoever is slow loses what memory does not hold any more
   * and gets `truncated` for it. Ends after the exit, at `signal`, or when the journal is left without an exit.
   */
  subscribe(afterSeq: number, signal: AbortSignal): AsyncGenerator<NumberedEvent, void>;
  /** The beginning that is to be stored, from a number on. */
  head(afterSeq: number): readonly NumberedEvent[];
  /** Resolves when the beginning has grown beyond a number, or the journal is over. */
  headGrown(afterSeq: number): Promise<void>;
  /** Bytes that did not go into the beginning. */
  bytesBeyondHead(): ByteCounts;
  /** No news come any more, and none was the exit: another process goes on. */
  close(): void;
  readonly total: ByteCounts;
  readonly lastSeq: number;
  readonly hasEnded: boolean;
}

interface BufferedEvent extends NumberedEvent {
  /** Bytes of the run before this. */
  bytesBefore: ByteCounts;
}

/** The beginning: bytes of output, and how many news. */
const MAX_HEAD = { bytes: 1024 * 1024, news: 16_384 };
/** What of the latest is kept for viewers who are behind. */
const MAX_TAIL = { bytes: 4 * 1024 * 1024, news: 16_384 };

/** Builds a journal. @param storedEvents what an earlier holder of the run has stored. */
export function createEventBuffer(storedEvents: readonly NumberedEvent[] = []): EventBuffer {
  const beginning: BufferedEvent[] = [];
  const tail = createTail();
  let isHeadFull = false;
  let total = NO_BYTES;
  let stored = NO_BYTES;
  let lastSeq = 0;
  let isOver = false;
  let wake = Promise.withResolvers<undefined>();

  function add(news: ViewerEvent): void {
    lastSeq += 1;
    const entry = { seq: lastSeq, news, bytesBefore: total };
    const own = countOutputBytes(news);
    total = addByteCounts(total, own);
    isHeadFull ||= bytesOf(addByteCounts(stored, own)) > MAX_HEAD.bytes || beginning.length >= MAX_HEAD.news;
    if (isHeadFull) tail.push(entry);
    else {
      beginning.push(entry);
      stored = addByteCounts(stored, own);
    }
    isOver = news.type === 'exit';
  }

  function wakeAll(): void {
    wake.resolve(undefined);
    wake = Promise.withResolvers();
  }

  const next = (afterSeq: number) => beginning[afterSeq] ?? tail.after(afterSeq);

  for (const { news } of storedEvents) add(news);
  return {
    append(news) {
      add(news);
      wakeAll();
    },
    async *subscribe(afterSeq, signal) {
      let at: ReadPosition = { seq: afterSeq, bytesRead: undefined };
      signal.addEventListener('abort', wakeAll);
      try {
        while (!signal.aborted) {
          const entry = next(at.seq);
          if (entry !== undefined) {
            if (entry.seq > at.seq + 1) yield* truncatedBetween(at, entry, stored);
            yield { seq: entry.seq, news: entry.news };
            at = {
              seq: entry.seq,
              bytesRead: addByteCounts(entry.bytesBefore, countOutputBytes(entry.news)),
            };
          } else if (isOver) return;
          else await wake.promise;
        }
      } finally {
        signal.removeEventListener('abort', wakeAll);
      }
    },
    head: (afterSeq) => beginning.slice(afterSeq),
    async headGrown(afterSeq) {
      while (!isOver && beginning.length <= afterSeq) await wake.promise;
    },
    bytesBeyondHead: () => ({ stdout: total.stdout - stored.stdout, stderr: total.stderr - stored.stderr }),
    close() {
      isOver = true;
      wakeAll();
    },
    get total() {
      return total;
    },
    get lastSeq() {
      return lastSeq;
    },
    get hasEnded() {
      return isOver;
    },
  };
}

/** Where a viewer stands: after which number, and how many bytes that is, where that is known. */
interface ReadPosition {
  seq: number;
  bytesRead: ByteCounts | undefined;
}

/**
 * In the place of the last entries that are missing. Of whoever comes back, what they had seen beyond the
 * beginning counts as well.
 */
function truncatedBetween(at: ReadPosition, until: BufferedEvent, stored: ByteCounts): NumberedEvent[] {
  const from = at.bytesRead ?? stored;
  const dropped = (['stdout', 'stderr'] as const)
    .map((stream) => ({ stream, droppedBytes: until.bytesBefore[stream] - from[stream] }))
    .filter(({ droppedBytes }) => droppedBytes > 0);
  return dropped.map((one, index) => ({
    seq: Math.max(at.seq + 1, until.seq - dropped.length + index),
    news: { type: 'truncated', ...one },
  }));
}

/** The latest entries, as many as there is room for. */
function createTail() {
  const entries: BufferedEvent[] = [];
  let bytes = 0;
  return {
    push(entry: BufferedEvent): void {
      entries.push(entry);
      bytes += bytesOf(countOutputBytes(entry.news));
      while (bytes > MAX_TAIL.bytes || entries.length > MAX_TAIL.news) {
        const gone = entries.shift();
        if (gone !== undefined) bytes -= bytesOf(countOutputBytes(gone.news));
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
