import type { Database } from '../lib/postgres/database.ts';
import { createOwnerCache } from '../lib/owner-cache.ts';
import type { NotificationListener } from '../lib/postgres/notification-listener.ts';
import { hashToken, isTokenText } from './token-format.ts';
import { findToken, listValidTokenIds, TOKENS_CHANNEL, type StoredToken } from './tokens-store.ts';

export interface TokenReaderDeps {
  database: Database;
  /** Notifications of other processes about deleted tokens. */
  notifications: Pick<NotificationListener, 'isListening' | 'onNotification' | 'onGap'>;
}

/** Finds the token of a request. */
export interface TokenReader {
  /**
   * Finds a token by its text; cached for at most 10 s, but not after its deletion: through this process it takes
   * effect at once, through another one within 1 s.
   * @returns undefined when it does not exist or has expired. Text without a valid checksum causes no query.
   * @throws AppError `database_unavailable` (503).
   */
  find(text: string): Promise<StoredToken | undefined>;
  /** Those of the ids whose token exists and has not expired, read from the database. */
  listValidIds(ids: readonly string[]): Promise<ReadonlySet<string>>;
  /** @param handler receives the ids of tokens that were deleted, in this or another process. */
  onDeleted(handler: (id: string) => void): void;
  /** Applies a deletion in this process without waiting for its notification. */
  readonly applyDeletion: (id: string) => void;
}

/** By digest, so that no token is kept in memory. */
export function createTokenReader({ database, notifications }: TokenReaderDeps): TokenReader {
  const cache = createOwnerCache<StoredToken | undefined, string>({
    async read(digest) {
      const value = await findToken(database, Buffer.from(digest, 'hex'));
      // Guessed tokens must not displace those in use.
      return { value, recordId: value?.id ?? null, isCacheable: value !== undefined };
    },
    isListening: () => notifications.isListening(),
  });
  const handlers: ((id: string) => void)[] = [];

  function applyDeletion(id: string): void {
    cache.invalidateRecord(id);
    for (const handle of handlers) handle(id);
  }

  notifications.onNotification(TOKENS_CHANNEL, applyDeletion);
  notifications.onGap(() => {
    cache.clear();
  });

  return {
    async find(text) {
      if (!isTokenText(text)) return undefined;
      const token = await cache.get(hashToken(text).toString('hex'));
      return token !== undefined && !hasExpired(token) ? token : undefined;
    },
    listValidIds: (ids) => listValidTokenIds(database, ids),
    onDeleted: (handler) => void handlers.push(handler),
    applyDeletion,
  };
}

/** A cached token can expire after it was read. */
function hasExpired({ expiresAt }: StoredToken): boolean {
  return expiresAt !== null && expiresAt.getTime() <= Date.now();
}
