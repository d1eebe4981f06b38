import type { ErrorCode } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import type { Owner } from '../lib/owner.ts';
import type { RefusalCount } from './usage-store.ts';

/** Counts refused requests by owner, code and minute. */
export interface RefusalCounts {
  add(owner: Owner, code: ErrorCode): void;
  /** Writes the counts that have changed since the last write. When it rejects, the next one has them again. */
  write(write: (counts: readonly RefusalCount[]) => Promise<void>): Promise<void>;
}

const MINUTE_MS = 60_000;
/** Each user has few codes in a minute. */
const MAX_COUNTS = 10_000;

interface OpenCount extends RefusalCount {
  /** What the database has. */
  storedCount: number;
}

/** Each count has an id of its own, so that a repeated write, another process and a clock that goes back lose nothing. */
export function createRefusalCounts(now: () => number = () => Date.now()): RefusalCounts {
  const counts = new Map<string, OpenCount>();
  const toMinute = () => Math.floor(now() / MINUTE_MS) * MINUTE_MS;

  return {
    add(owner, code) {
      const minute = toMinute();
      const name = `${minute} ${code} ${owner}`;
      const known = counts.get(name);
      if (known !== undefined) known.count += 1;
      else if (counts.size < MAX_COUNTS)
        counts.set(name, {
          id: randomId(20),
          owner,
          code,
          minute: new Date(minute),
          count: 1,
          storedCount: 0,
        });
    },
    async write(write) {
      const written = [...counts.values()]
        .filter(({ count, storedCount }) => count > storedCount)
        .map(({ storedCount: _stored, ...count }) => count);
      if (written.length > 0) await write(written);
      const byId = new Map(written.map(({ id, count }) => [id, count]));
      const minute = toMinute();
      for (const [name, open] of counts) {
        open.storedCount = byId.get(open.id) ?? open.storedCount;
        const isOver = open.minute.getTime() !== minute;
        if (isOver && open.storedCount === open.count) counts.delete(name);
      }
    },
  };
}
