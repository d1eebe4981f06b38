import type { Owner } from '../lib/owner.ts';

/** What was read of an owner. */
export interface PoolSnapshot<Value> {
  value: Value;
  /** The vault record that was read; null when there is none. */
  recordId: string | null;
  /** False when the owner's keys were being changed meanwhile: it serves this request and is not kept. */
  isCacheable: boolean;
}

export interface PoolCacheDeps<Value> {
  read(owner: Owner): Promise<PoolSnapshot<Value>>;
  /** Whether changes by other processes are heard of; while they are not, nothing is remembered or shared. */
  isListening(): boolean;
  /** A clock that never goes back, in ms. */
  now?: () => number;
  maxEntries?: number;
}

/** Remembers what was read of owners, until it changes, 10 s at most. */
export interface PoolCache<Value> {
  /** @throws what `read` throws; nothing older is used then. */
  get(owner: Owner): Promise<Value>;
  /** Whoever comes from now on reads anew, and does not share what is being read. */
  invalidate(owner: Owner): void;
  /** The same, for the owner of a vault record. */
  invalidateRecord(recordId: string): void;
  clear(): void;
  /**
   * False when `note` was made of the owner within `withinMs` and nothing of the owner has changed since:
   * then it need not be written down again.
   */
  isWriteDue(owner: Owner, note: string, withinMs: number): boolean;
}

/** What an administrator changes in Keycloak takes effect within this time even if no event is seen. */
const MAX_AGE_MS = 10_000;

interface CacheEntry<Value> {
  startedAtMs: number;
  snapshot: Promise<PoolSnapshot<Value>>;
  /** Undefined while it is being read. */
  recordId: string | null | undefined;
  /** When each note was made. */
  writtenAtMs: Map<string, number>;
}

/**
 * Builds the cache. An entry is the reading itself, from its start: whoever comes while it runs shares it,
 * and one that is dropped while it runs is gone for all who come later.
 */
export function createPoolCache<Value>(deps: PoolCacheDeps<Value>): PoolCache<Value> {
  const { now = () => performance.now(), maxEntries = 2_000 } = deps;
  /** The oldest first. */
  const entries = new Map<Owner, CacheEntry<Value>>();

  function load(owner: Owner): CacheEntry<Value> {
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
    entry.snapshot.then(({ recordId, isCacheable: isSettled }) => {
      entry.recordId = recordId;
      if (!isSettled) remove();
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
      // What is being read by another request may be of before a change that was not heard of.
      if (!deps.isListening()) return (await deps.read(owner)).value;
      const known = entries.get(owner);
      const entry = known !== undefined && isFresh(known) ? known : load(owner);
      return (await entry.snapshot).value;
    },

    invalidate: (owner) => void entries.delete(owner),

    invalidateRecord(recordId) {
      for (const [owner, entry] of entries) {
        // Of what is still being read nobody knows yet whose record it is.
        if (entry.recordId === recordId || entry.recordId === undefined) entries.delete(owner);
      }
    },

    clear() {
      entries.clear();
    },

    isWriteDue(owner, note, withinMs) {
      const notes = deps.isListening() ? entries.get(owner)?.writtenAtMs : undefined;
      const madeAtMs = notes?.get(note);
      if (madeAtMs !== undefined && now() - madeAtMs < withinMs) return false;
      notes?.set(note, now());
      return true;
    },
  };
}
