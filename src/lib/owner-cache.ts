import type { Owner } from './owner.ts';

/** What was read of an owner. */
export interface OwnerSnapshot<Value> {
  value: Value;
  /** The stored record that was read; null when there is none. */
  recordId: string | null;
  /** False when the owner's data changed during the read: the result serves this request and is not cached. */
  isCacheable: boolean;
}

export interface OwnerCacheDeps<Value, Key extends string = Owner> {
  read(owner: Key): Promise<OwnerSnapshot<Value>>;
  /** Whether notifications of other processes arrive. While they do not, nothing is cached or shared. */
  isListening(): boolean;
  /** A monotonic clock, in ms. */
  now?: () => number;
  maxEntries?: number;
}

/**
 * Caches what was read of an owner until it changes, for at most 10 s.
 * @typeParam Key what names the owner: for tokens, the digest by which they are found.
 */
export interface OwnerCache<Value, Key extends string = Owner> {
  /** @throws what `read` throws; an older result is not used then. */
  get(owner: Key): Promise<Value>;
  /** Later calls of `get` read again and do not share a read in progress. */
  invalidate(owner: Key): void;
  /** The same, for the owner of a record. */
  invalidateRecord(recordId: string): void;
  clear(): void;
  /**
   * False when the same note was written for the owner less than `withinMs` ago and the owner has not changed since.
   * Otherwise true, and the note counts as written now.
   */
  isWriteDue(owner: Key, note: string, withinMs: number): boolean;
}

/** Changes made in Keycloak take effect within this time even without an event. */
const MAX_AGE_MS = 10_000;

interface CacheEntry<Value> {
  startedAtMs: number;
  snapshot: Promise<OwnerSnapshot<Value>>;
  /** Undefined during the read. */
  recordId: string | null | undefined;
  /** Note -> time of its last write. */
  writtenAtMs: Map<string, number>;
}

/**
 * An entry exists from the start of its read, so that concurrent calls share the read. After an entry is removed during
 * its read, later calls start a new one.
 */
export function createOwnerCache<Value, Key extends string = Owner>(
  deps: OwnerCacheDeps<Value, Key>,
): OwnerCache<Value, Key> {
  const { now = () => performance.now(), maxEntries = 2_000 } = deps;
  /** Oldest first. */
  const entries = new Map<Key, CacheEntry<Value>>();

  function load(owner: Key): CacheEntry<Value> {
    const entry: CacheEntry<Value> = {
      startedAtMs: now(),
      snapshot: deps.read(owner),
      recordId: undefined,
      writtenAtMs: new Map(),
    };
    entries.delete(owner);
    entries.set(owner, entry);
    evictStale();
    const remove = () => {
      if (entries.get(owner) === entry) entries.delete(owner);
    };
    entry.snapshot.then(({ recordId, isCacheable }) => {
      entry.recordId = recordId;
      if (!isCacheable) remove();
    }, remove);
    return entry;
  }

  function evictStale(): void {
    for (const [owner, entry] of entries) {
      if (isFresh(entry) && entries.size <= maxEntries) return;
      entries.delete(owner);
    }
  }

  function isFresh(entry: CacheEntry<Value>): boolean {
    return now() - entry.startedAtMs < MAX_AGE_MS;
  }

  return {
    async get(owner) {
      // A read in progress may have started before a change whose notification was lost.
      if (!deps.isListening()) return (await deps.read(owner)).value;
      const cached = entries.get(owner);
      const entry = cached !== undefined && isFresh(cached) ? cached : load(owner);
      return (await entry.snapshot).value;
    },

    invalidate: (owner) => void entries.delete(owner),

    invalidateRecord(recordId) {
      for (const [owner, entry] of entries) {
        // During a read, the record id is not known yet.
        if (entry.recordId === recordId || entry.recordId === undefined) entries.delete(owner);
      }
    },

    clear() {
      entries.clear();
    },

    isWriteDue(owner, note, withinMs) {
      const writtenAtMs = deps.isListening() ? entries.get(owner)?.writtenAtMs : undefined;
      const lastMs = writtenAtMs?.get(note);
      if (lastMs !== undefined && now() - lastMs < withinMs) return false;
      writtenAtMs?.set(note, now());
      return true;
    },
  };
}
