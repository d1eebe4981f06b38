import { z } from 'zod';
import type { Database } from '../postgres/database.ts';

/** The members of a Keycloak event that the reader needs. */
export interface KeycloakEvent {
  id: string;
  /** Keycloak's clock, epoch ms. */
  time: number;
}

export interface KeycloakEventReaderDeps<Event extends KeycloakEvent> {
  database: Database;
  /** Name of the stored cursor: one per stream of events. */
  cursorName: string;
  /** Fetches one page of events from `dateFromMs` on (inclusive), newest first. */
  fetchPage(page: { dateFromMs: number; first: number; max: number }): Promise<Event[]>;
  /**
   * Handles events, newest first within a page. An event may be repeated after a restart or an error.
   * @returns the events to repeat in the next poll, for at most {@link OVERLAP_MS} after they were first handled.
   */
  handle(events: Event[]): Promise<Event[]>;
  pageSize?: number;
  /** This machine's clock, epoch ms. */
  now?: () => number;
  /** A monotonic clock, in ms. */
  monotonicNow?: () => number;
}

/**
 * An event has the time at which its request began, but appears when the request is committed. So an older event can
 * appear after a newer one: each poll reads this overlap again.
 */
const OVERLAP_MS = 15_000;

const Cursor = z.object({ read_to_ms: z.coerce.number() });

/**
 * Polls a stream of events from a cursor in Keycloak's time. The cursor in the database is used after a restart only.
 * While running, each process has its own cursor, because each process must handle every event.
 * @returns a function that reads up to the newest event.
 */
export function createKeycloakEventReader<Event extends KeycloakEvent>(
  deps: KeycloakEventReaderDeps<Event>,
): () => Promise<void> {
  const { pageSize = 100, now = Date.now, monotonicNow = () => performance.now() } = deps;
  let cursorMs: number | undefined;
  let savedMs: number | undefined;
  /** Handled events that can be returned again, with their times. */
  const seen = new Map<string, number>();
  /** When each repeated event was first handled. */
  const repeatedSinceMs = new Map<string, number>();

  async function readStartTime(): Promise<number> {
    const [stored] = await deps.database.rows(
      Cursor,
      'SELECT read_to_ms FROM event_cursors WHERE realm = $1',
      [deps.cursorName],
    );
    if (stored !== undefined) return stored.read_to_ms;
    // First start ever: this process holds no state that an older event could concern.
    const [newest] = await deps.fetchPage({ dateFromMs: 0, first: 0, max: 1 });
    return newest?.time ?? 0;
  }

  async function save(readToMs: number): Promise<void> {
    await deps.database.run(
      `INSERT INTO event_cursors (realm, read_to_ms) VALUES ($1, $2)
       ON CONFLICT (realm) DO UPDATE SET read_to_ms = greatest(event_cursors.read_to_ms, excluded.read_to_ms)`,
      [deps.cursorName, readToMs],
    );
  }

  /** The overlap alone is no bound: it reaches back from the newest event, and a quiet realm has no newer one. */
  function isRepeated({ id }: Event): boolean {
    const sinceMs = repeatedSinceMs.get(id) ?? monotonicNow();
    repeatedSinceMs.set(id, sinceMs);
    return monotonicNow() - sinceMs < OVERLAP_MS;
  }

  return async () => {
    // Stored at once: if the first poll fails, the next one must not begin later.
    const readToMs = (cursorMs ??= await readStartTime());
    // Keycloak's clock may run ahead and then be set back. The newest event is then in the future, and new events
    // have earlier times.
    const fromMs = Math.max(0, Math.min(readToMs, now()) - OVERLAP_MS);
    let newestMs = readToMs;
    const handled = new Map<string, number>();
    // A new event shifts the others to later pages: pages can repeat an event, but not omit one.
    for (let first = 0; ; first += pageSize) {
      const page = await deps.fetchPage({ dateFromMs: fromMs, first, max: pageSize });
      const unseen = page.filter((event) => !seen.has(event.id));
      const repeated = unseen.length > 0 ? await deps.handle(unseen) : [];
      for (const event of page) {
        if (!repeated.includes(event) || !isRepeated(event)) handled.set(event.id, event.time);
        newestMs = Math.max(newestMs, event.time);
      }
      if (page.length < pageSize) break;
    }
    if (newestMs !== savedMs) await save(newestMs);
    savedMs = newestMs;
    // Only now: after an error the events are read and handled again.
    cursorMs = newestMs;
    for (const [id, time] of handled) {
      seen.set(id, time);
      repeatedSinceMs.delete(id);
    }
    // Later polls do not begin earlier than this one.
    for (const [id, time] of seen) if (time < fromMs) seen.delete(id);
  };
}
