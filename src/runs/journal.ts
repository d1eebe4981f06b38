import { addTallies, NO_BYTES, tallyOf, type NumberedNews, type RunNews, type Tally } from './events.ts';

/** The news of a run that this process has, in memory: the beginning, which is stored as well, and the latest. */
export interface Journal {
  /** Numbers the news and tells whoever follows. An exit is the last. */
  append(news: RunNews): void;
  /**
   * Yields what comes after a number, then what comes. Whoever is slow loses what memory does not hold any more
   * and gets `truncated` for it. Ends after the exit, at `signal`, or when the journal is left without an exit.
   */
  follow(afterSeq: number, signal: AbortSignal): AsyncGenerator<NumberedNews, void>;
  /** The beginning that is to be stored, from a number on. */
  beginning(afterSeq: number): readonly NumberedNews[];
  /** Resolves when the beginning has grown beyond a number, or the journal is over. */
  grown(afterSeq: number): Promise<void>;
  /** Bytes that did not go into the beginning. */
  beyond(): Tally;
  /** No news come any more, and none was the exit: another process goes on. */
  leave(): void;
  readonly total: Tally;
  readonly lastSeq: number;
  readonly isOver: boolean;
}

interface Entry extends NumberedNews {
  /** Bytes of the run before this. */
  before: Tally;
}

/** The beginning: bytes of output, and how many news. */
const BEGINNING = { bytes: 1024 * 1024, news: 16_384 };
/** What of the latest is kept for viewers who are behind. */
const LATEST = { bytes: 4 * 1024 * 1024, news: 16_384 };

/** Builds a journal. @param known what an earlier holder of the run has stored. */
export function createJournal(known: readonly NumberedNews[] = []): Journal {
  const beginning: Entry[] = [];
  const latest = createWindow();
  let isBeginningFull = false;
  let total = NO_BYTES;
  let stored = NO_BYTES;
  let lastSeq = 0;
  let isOver = false;
  let wake = Promise.withResolvers<undefined>();

  function add(news: RunNews): void {
    lastSeq += 1;
    const entry = { seq: lastSeq, news, before: total };
    const own = tallyOf(news);
    total = addTallies(total, own);
    isBeginningFull ||=
      bytesOf(addTallies(stored, own)) > BEGINNING.bytes || beginning.length >= BEGINNING.news;
    if (isBeginningFull) latest.push(entry);
    else {
      beginning.push(entry);
      stored = addTallies(stored, own);
    }
    isOver = news.type === 'exit';
  }

  function wakeAll(): void {
    wake.resolve(undefined);
    wake = Promise.withResolvers();
  }

  const next = (afterSeq: number) => beginning[afterSeq] ?? latest.after(afterSeq);

  for (const { news } of known) add(news);
  return {
    append(news) {
      add(news);
      wakeAll();
    },
    async *follow(afterSeq, signal) {
      let at: Position = { seq: afterSeq, tally: undefined };
      signal.addEventListener('abort', wakeAll);
      try {
        while (!signal.aborted) {
          const entry = next(at.seq);
          if (entry !== undefined) {
            if (entry.seq > at.seq + 1) yield* truncatedBetween(at, entry, stored);
            yield { seq: entry.seq, news: entry.news };
            at = { seq: entry.seq, tally: addTallies(entry.before, tallyOf(entry.news)) };
          } else if (isOver) return;
          else await wake.promise;
        }
      } finally {
        signal.removeEventListener('abort', wakeAll);
      }
    },
    beginning: (afterSeq) => beginning.slice(afterSeq),
    async grown(afterSeq) {
      while (!isOver && beginning.length <= afterSeq) await wake.promise;
    },
    beyond: () => ({ stdout: total.stdout - stored.stdout, stderr: total.stderr - stored.stderr }),
    leave() {
      isOver = true;
      wakeAll();
    },
    get total() {
      return total;
    },
    get lastSeq() {
      return lastSeq;
    },
    get isOver() {
      return isOver;
    },
  };
}

/** Where a viewer stands: after which number, and how many bytes that is, where that is known. */
interface Position {
  seq: number;
  tally: Tally | undefined;
}

/**
 * In the place of the last entries that are missing. Of whoever comes back, what they had seen beyond the
 * beginning counts as well.
 */
function truncatedBetween(at: Position, until: Entry, stored: Tally): NumberedNews[] {
  const from = at.tally ?? stored;
  const dropped = (['stdout', 'stderr'] as const)
    .map((stream) => ({ stream, droppedBytes: until.before[stream] - from[stream] }))
    .filter(({ droppedBytes }) => droppedBytes > 0);
  return dropped.map((one, index) => ({
    seq: Math.max(at.seq + 1, until.seq - dropped.length + index),
    news: { type: 'truncated', ...one },
  }));
}

/** The latest entries, as many as there is room for. */
function createWindow() {
  const entries: Entry[] = [];
  let bytes = 0;
  return {
    push(entry: Entry): void {
      entries.push(entry);
      bytes += bytesOf(tallyOf(entry.news));
      while (bytes > LATEST.bytes || entries.length > LATEST.news) {
        const gone = entries.shift();
        if (gone !== undefined) bytes -= bytesOf(tallyOf(gone.news));
      }
    },
    after(seq: number): Entry | undefined {
      const oldest = entries[0];
      return oldest === undefined ? undefined : entries[Math.max(0, seq + 1 - oldest.seq)];
    },
  };
}

function bytesOf({ stdout, stderr }: Tally): number {
  return stdout + stderr;
}
