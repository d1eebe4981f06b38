import type { Database } from '../lib/postgres/database.ts';
import type { Owner } from '../lib/owner.ts';
import { writeTestStatus, writeLastUse, startCooldown } from './key-status-store.ts';
import type { KeyReader } from './key-reader.ts';
import { UNREADABLE_KEY_ID } from './stored-key.ts';

export interface KeyUseDeps {
  database: Database;
  reader: Pick<KeyReader, 'invalidate' | 'isWriteDue'>;
}

/** What the gateway found out about keys by using them. */
export interface KeyUse {
  /** Upstream answered 401: sets the key aside for 1, 5, 30 minutes, then hourly. */
  recordRefusal(owner: Owner, provider: string, keyId: string): Promise<void>;
  /** `open()` answered undefined. */
  recordUndecryptable(owner: Owner, provider: string, keyId: string): Promise<void>;
  /** The key just served. */
  recordUse(owner: Owner, provider: string, keyId: string): Promise<void>;
}

/** So often at most is it written down that the same key is used, or is damaged, time and again. */
const MIN_WRITE_INTERVAL_MS = 1_000;

/**
 * Builds it. Other processes hear of what changes the choice of a key; this one must not choose by what it
 * remembers of before either, as soon as the note is made.
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
