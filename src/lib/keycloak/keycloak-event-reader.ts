import { z } from 'zod';
import type { Database } from '../postgres/database.ts';

/** An event of Keycloak, as far as the reader must know it. */
export interface KeycloakEvent {
  id: string;
  /** Keycloak's clock, epoch ms. */
  time: number;
}

export interface KeycloakEventReaderDeps<Event extends KeycloakEvent> {
  database: Database;
  /** Under which name the cursor is kept: one per stream of events. */
  cursorName: string;
  /** One page, newest first, of events from `dateFromMs` on (inclusive). */
  fetchPage(page: { dateFromMs: number; first: number; max: number }): Promise<Event[]>;
  /** Obeys events; may see one again after a restart or a failure. Order within a page is newest first. */
  handle(events: Event[]): Promise<void>;
  pageSize?: number;
  /** This machine's clock, epoch ms. */
  now?: () => number;
}

/**
 * Events bear the time at which their request began and appear when it is committed, so that an older one can
 * appear after a newer one: each poll reads this far back again.
 */
const OVERLAP_MS = 15_000;

const Cursor = z.object({ read_to_ms: z.coerce.number() });

/**
 * Builds a reader that polls a stream of events from a cursor in Keycloak's own time. The cursor in the
 * database serves a restart; while running, each process has its own, since each must obey every event.
 * @returns a function that reads on to the newest event.
 */
export function createKeycloakEventReader<Event extends KeycloakEvent>(
  deps: KeycloakEventReaderDeps<Event>,
): () => Promise<void> {
  const { pageSize = 100, now = Date.now } = deps;
  let cursorMs: number | undefined;
  let savedMs: number | undefined;
  /** Events obeyed that can come again, with their times. */
  const seen = new Map<string, number>();

  async function readStartTime(): Promise<number> {
    const [stored] = await deps.database.rows(
      Cursor,
      'SELECT read_to_ms FROM event_cursors WHERE realm = $1',
      [deps.cursorName],
    );
    if (stored !== undefined) return stored.read_to_ms;
    // The first start ever: nothing is kept here that an older event could concern.
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

  return async () => {
    // Kept at once: a first poll that fails half-way must not begin later next time.
    const readToMs = (cursorMs ??= await readStartTime());
    // Keycloak's clock may run ahead and be set back: then the newest event that was read lies in the future,
    // and what happens now seems to be long before it.
    const fromMs = Math.max(0, Math.min(readToMs, now()) - OVERLAP_MS);
    let newestMs = readToMs;
    const handled = new Map<string, number>();
    // A new event moves the others to later places: pages can repeat an event, never leave one out.
    for (let first = 0; ; first += pageSize) {
      const page = await deps.fetchPage({ dateFromMs: fromMs, first, max: pageSize });
      const unseen = page.filter((event) => !seen.has(event.id));
      if (unseen.length > 0) await deps.handle(unseen);
      for (const event of page) {
        handled.set(event.id, event.time);
        newestMs = Math.max(newestMs, event.time);
      }
      if (page.length < pageSize) break;
    }
    if (newestMs !== savedMs) await save(newestMs);
    savedMs = newestMs;
    // Only now: what failed half-way is read and obeyed again.
    cursorMs = newestMs;
    for (const [id, time] of handled) seen.set(id, time);
    // Later polls begin no earlier than this one did.
    for (const [id, time] of seen) if (time < fromMs) seen.delete(id);
  };
}
