import type { Database } from '../lib/postgres/database.ts';
import type { Owner } from '../lib/owner.ts';
import { writeTestStatus, writeLastUse, startCooldown } from './key-status-store.ts';
import type { KeyReader } from './key-reader.ts';
import { UNREADABLE_KEY_ID } from './stored-key.ts';

export interface KeyUseDeps {
  database: Database;
  reader: Pick<KeyReader, 'invalidate' | 'isWriteDue'>;
}

/** Writes what the gateway learns about keys by using them. */
export interface KeyUse {
  /** Upstream answered 401: starts a cooldown of 1, 5, 30, then 60 minutes. */
  recordRefusal(owner: Owner, provider: string, keyId: string): Promise<void>;
  /** `decrypt()` returned undefined. */
  recordUndecryptable(owner: Owner, provider: string, keyId: string): Promise<void>;
  /** The key served a request. */
  recordUse(owner: Owner, provider: string, keyId: string): Promise<void>;
}

/** Minimum interval between two status writes for the same key. */
const MIN_WRITE_INTERVAL_MS = 1_000;

/**
 * A change that affects key selection is notified to the other processes. The cache of this process is invalidated as
 * soon as the status is written.
 */
export function createKeyUse({ database, reader }: KeyUseDeps): KeyUse {
  return {
    async recordRefusal(owner, provider, keyId) {
      await database.withOwner(owner, (sql) =>
        startCooldown(sql, [owner, provider, keyId], 'invalid', 'The provider refused it (401).'),
      );
      reader.invalidate(owner);
    },

    async recordUndecryptable(owner, provider, keyId) {
      const note = `undecryptable ${provider}/${keyId}`;
      if (keyId === UNREADABLE_KEY_ID || !reader.isWriteDue(owner, note, MIN_WRITE_INTERVAL_MS)) return;
      await database.withOwner(owner, (sql) =>
        writeTestStatus(
          sql,
          [owner, provider, keyId],
          'undecryptable',
          'It cannot be decrypted. Add it again.',
        ),
      );
    },

    async recordUse(owner, provider, keyId) {
      if (!reader.isWriteDue(owner, `used ${provider}/${keyId}`, MIN_WRITE_INTERVAL_MS)) return;
      const isCleared = await database.withOwner(owner, (sql) => writeLastUse(sql, [owner, provider, keyId]));
      if (isCleared) reader.invalidate(owner);
    },
  };
}
