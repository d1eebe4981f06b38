import { z } from 'zod';
import { OwnerText, type Owner } from '../../lib/owner.ts';
import type { Database } from '../../lib/postgres/database.ts';

/** The key that made a response which its provider stores. */
export interface StoredResponse {
  id: string;
  provider: string;
  keyId: string;
  /** The address that the key brings; null for the provider's or operator's address. */
  endpoint: string | null;
  model: string;
}

const StoredResponseRow = z.object({
  id: z.string(),
  provider: z.string(),
  key_id: z.string(),
  endpoint: z.string().nullable(),
  model: z.string(),
});

/** OpenAI stores responses for 30 days. */
const MAX_AGE_DAYS = 31;

export interface ResponseStore {
  write(owner: Owner, response: StoredResponse): Promise<void>;
  find(owner: Owner, id: string): Promise<StoredResponse | undefined>;
  remove(owner: Owner, id: string): Promise<void>;
  removeAll(owner: Owner): Promise<void>;
  /** All owners of such rows. */
  listOwners(): Promise<Owner[]>;
  /** Deletes what providers do not store any more, of all owners. */
  prune(): Promise<void>;
}

export function createResponseStore(database: Database): ResponseStore {
  return {
    async write(owner, { id, provider, keyId, endpoint, model }) {
      const row = { owner, id, provider, key_id: keyId, endpoint, model };
      await database.run('SELECT record_response($1)', [JSON.stringify(row)]);
    },
    async find(owner, id) {
      const [row] = await database.withOwner(owner, (sql) =>
        sql.rows(
          StoredResponseRow,
          'SELECT id, provider, key_id, endpoint, model FROM stored_responses WHERE owner = $1 AND id = $2',
          [owner, id],
        ),
      );
      if (row === undefined) return undefined;
      const { provider, key_id: keyId, endpoint, model } = row;
      return { id: row.id, provider, keyId, endpoint, model };
    },
    async remove(owner, id) {
      await database.withOwner(owner, (sql) =>
        sql.run('DELETE FROM stored_responses WHERE owner = $1 AND id = $2', [owner, id]),
      );
    },
    async removeAll(owner) {
      await database.withOwner(owner, (sql) =>
        sql.run('DELETE FROM stored_responses WHERE owner = $1', [owner]),
      );
    },
    async listOwners() {
      const rows = await database.rows(
        z.object({ owner: OwnerText }),
        'SELECT owners_of_stored_responses() AS owner',
      );
      return rows.map(({ owner }) => owner);
    },
    async prune() {
      await database.run('SELECT prune_stored_responses($1)', [MAX_AGE_DAYS]);
    },
  };
}
