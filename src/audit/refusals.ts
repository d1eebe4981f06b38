import type { Log } from '../lib/log.ts';
import type { Owner } from '../lib/owner.ts';
import type { Database } from '../lib/postgres/database.ts';
import { writeAuditEvent } from './events.ts';

/** Refusals of one owner. */
export interface Refusal {
  owner: Owner;
  /** What was refused, e.g. `route:POST /api/v1/byok/keys/add`. */
  object: string;
  requestId: string;
}

/** Writes refusals to the audit trail: one row for each owner, object and minute, with their number. */
export interface RefusalTrail {
  /** Resolves when the row is written. Further refusals of the minute are counted in memory. */
  record(refusal: Refusal): Promise<void>;
  /** Writes all counts now. */
  flush(): Promise<void>;
}

const WINDOW_MS = 60_000;

interface RefusalWindow {
  owner: Owner;
  count: number;
  eventId: Promise<string>;
  timer: NodeJS.Timeout;
}

/** A refused client can send thousands of requests a second, which must not become rows. */
export function createRefusalTrail({ database, log }: { database: Database; log: Log }): RefusalTrail {
  const windows = new Map<string, RefusalWindow>();

  function open(key: string, { owner, object, requestId }: Refusal): RefusalWindow {
    const event = { owner, actor: owner, action: 'tier.refused', object, requestId } as const;
    const window: RefusalWindow = {
      owner,
      count: 0,
      eventId: database.withOwner(owner, (sql) => writeAuditEvent(sql, event)),
      timer: setTimeout(() => void close(key), WINDOW_MS).unref(),
    };
    windows.set(key, window);
    // Without a row there is nothing to count in: the next refusal tries again.
    window.eventId.catch(() => {
      clearTimeout(window.timer);
      windows.delete(key);
    });
    return window;
  }

  async function close(key: string): Promise<void> {
    const window = windows.get(key);
    if (window === undefined) return;
    windows.delete(key);
    clearTimeout(window.timer);
    if (window.count === 1) return;
    try {
      const values = [await window.eventId, window.count];
      await database.withOwner(window.owner, (sql) => sql.run('SELECT count_refusals($1, $2)', values));
    } catch (error) {
      log.warn({ err: error }, 'the number of refusals could not be written to the audit trail');
    }
  }

  return {
    async record(refusal) {
      const key = `${refusal.owner} ${refusal.object}`;
      const window = windows.get(key) ?? open(key, refusal);
      window.count += 1;
      await window.eventId;
    },
    async flush() {
      await Promise.all([...windows.keys()].map(close));
    },
  };
}
