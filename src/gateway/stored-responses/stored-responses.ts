import type { Log } from '../../lib/log.ts';
import type { Owner } from '../../lib/owner.ts';
import type { ResponseStore, StoredResponse } from './response-store.ts';

/**
 * Which key made which stored response. Rows are written while the response is sent, so that every instance finds them
 * when a client refers to a response.
 */
export interface StoredResponses {
  /**
   * Writes the row in the background. A failed write is logged and never fails the request.
   * @returns a promise that resolves when the row is written, or after a second. It never rejects.
   */
  record(owner: Owner, response: StoredResponse, log: Log): Promise<void>;
  /** Waits for a row that this process is writing. @throws AppError `database_unavailable`. */
  find(owner: Owner, id: string): Promise<StoredResponse | undefined>;
  /** Runs in the background. */
  remove(owner: Owner, id: string, log: Log): void;
  removeAll(owner: Owner): Promise<void>;
  /** Resolves when all pending writes have ended. */
  flush(): Promise<void>;
}

/** Ids of providers. Others could change the path of a request that contains them. */
const RESPONSE_ID = /^[A-Za-z0-9_][A-Za-z0-9._:-]{0,255}$/;
/** The last events of a response wait no longer for its row, e.g. while the database is away. */
const MAX_WAIT_MS = 1_000;
const PRUNE_INTERVAL_MS = 60 * 60_000;

export function createStoredResponses(
  store: ResponseStore,
  now: () => number = () => performance.now(),
): StoredResponses {
  const writing = new Map<string, Promise<void>>();
  let prunedAtMs = -Infinity;

  function track(key: string, log: Log, write: Promise<void>): Promise<void> {
    const tracked = write
      .catch((error: unknown) => {
        log.warn({ err: error }, 'the key of a stored response could not be written');
      })
      .finally(() => {
        if (writing.get(key) === tracked) writing.delete(key);
      });
    writing.set(key, tracked);
    return tracked;
  }

  function pruneSometimes(log: Log): void {
    if (now() - prunedAtMs < PRUNE_INTERVAL_MS) return;
    prunedAtMs = now();
    void track('prune', log, store.prune());
  }

  return {
    async record(owner, response, log) {
      if (!RESPONSE_ID.test(response.id)) return;
      pruneSometimes(log);
      const written = track(toKey(owner, response.id), log, store.write(owner, response));
      await waitAtMost(written, MAX_WAIT_MS);
    },
    async find(owner, id) {
      if (!RESPONSE_ID.test(id)) return undefined;
      await writing.get(toKey(owner, id));
      return store.find(owner, id);
    },
    remove(owner, id, log) {
      void track(toKey(owner, id), log, store.remove(owner, id));
    },
    removeAll: (owner) => store.removeAll(owner),
    async flush() {
      await Promise.all(writing.values());
    },
  };
}

function toKey(owner: Owner, id: string): string {
  return JSON.stringify([owner, id]);
}

async function waitAtMost(work: Promise<void>, timeoutMs: number): Promise<void> {
  const timeout = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => {
    timeout.resolve(undefined);
  }, timeoutMs);
  await Promise.race([work, timeout.promise]);
  clearTimeout(timer);
}
