import { z } from 'zod';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';

/** Names one request and its repeats. */
export interface ClaimName {
  owner: Owner;
  /** Method and declared path. */
  route: string;
  keyMac: string;
}

/** What is known of a request before it runs. */
export type ClaimState =
  /** This request runs, and creates the object with this id. */
  | { kind: 'claimed'; objectId: string }
  /** Another request is running, or its process was killed within the lease. */
  | { kind: 'running' }
  /** The key was used with another input. */
  | { kind: 'other_input' }
  /** The object was created. `answer` is encrypted; null when it was not stored. */
  | { kind: 'created'; objectId: string; answer: string | null };

const ObjectRow = z.object({ object_id: z.string() });
const ClaimRow = z.object({
  input_mac: z.string(),
  object_id: z.string(),
  created: z.boolean(),
  answer: z.string().nullable(),
  is_leased: z.boolean(),
});

/** No request may run as long: each part of it has a shorter limit. */
const LEASE = '120 seconds';
const IS_SAME_CLAIM = 'owner = $1 AND route = $2 AND key_mac = $3';
const toKey = ({ owner, route, keyMac }: ClaimName) => [owner, route, keyMac];

export function createClaimsStore(database: Database) {
  const change = (name: ClaimName, text: string, values: unknown[] = []) =>
    database.withOwner(name.owner, (sql) => sql.run(text, [...toKey(name), ...values]));
  return {
    /** Claims a request, or finds what an earlier one with the same key has done within 24 hours. */
    claim: (name: ClaimName, inputMac: string, objectId: string): Promise<ClaimState> =>
      database.withOwner(name.owner, async (sql) => {
        const [claimed] = await sql.rows(
          ObjectRow,
          `INSERT INTO idempotency_keys AS k (owner, route, key_mac, input_mac, object_id, lease_until)
           VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6::interval)
           ON CONFLICT (owner, route, key_mac) DO UPDATE
             SET input_mac = excluded.input_mac, object_id = excluded.object_id, created = false, answer = NULL,
                 lease_until = excluded.lease_until, time = now()
             WHERE k.time < clock_timestamp() - interval '24 hours'
           RETURNING object_id`,
          [...toKey(name), inputMac, objectId, LEASE],
        );
        if (claimed !== undefined) return { kind: 'claimed', objectId };
        return readClaim(sql, name, inputMac);
      }),

    /** Ends a request that has created its object. */
    complete: (name: ClaimName, answer: string | null) =>
      change(
        name,
        `UPDATE idempotency_keys SET created = true, answer = $4, lease_until = clock_timestamp()
         WHERE ${IS_SAME_CLAIM}`,
        [answer],
      ),

    /** Ends a request that was refused: a repeat runs, as if it were the first. */
    async release(name: ClaimName): Promise<void> {
      await change(name, `DELETE FROM idempotency_keys WHERE ${IS_SAME_CLAIM} AND NOT created`);
      await this.endLease(name);
    },

    /** Ends a request that failed: a repeat runs with the same object id, unless the object was created. */
    async endLease(name: ClaimName): Promise<void> {
      const ended = 'SET lease_until = clock_timestamp()';
      await change(name, `UPDATE idempotency_keys ${ended} WHERE ${IS_SAME_CLAIM}`);
    },

    async removeAll(owner: Owner): Promise<void> {
      await database.withOwner(owner, (sql) =>
        sql.run('DELETE FROM idempotency_keys WHERE owner = $1', [owner]),
      );
    },

    async listOwners(): Promise<Owner[]> {
      const rows = await database.rows(
        z.object({ owner: OwnerText }),
        'SELECT owners_of_idempotency_keys() AS owner',
      );
      return rows.map(({ owner }) => owner);
    },

    async prune(): Promise<void> {
      await database.run('SELECT prune_idempotency_keys()');
    },
  };
}

async function readClaim(sql: Sql, name: ClaimName, inputMac: string): Promise<ClaimState> {
  const [row] = await sql.rows(
    ClaimRow,
    `SELECT input_mac, object_id, created, answer, lease_until > clock_timestamp() AS is_leased
     FROM idempotency_keys WHERE ${IS_SAME_CLAIM} FOR UPDATE`,
    toKey(name),
  );
  // Released between the two statements: a repeat can claim it.
  if (row === undefined) return { kind: 'running' };
  const { object_id: objectId, answer } = row;
  if (row.input_mac !== inputMac) return { kind: 'other_input' };
  if (row.is_leased) return { kind: 'running' };
  if (row.created) return { kind: 'created', objectId, answer };
  await sql.run(
    `UPDATE idempotency_keys SET lease_until = clock_timestamp() + $4::interval WHERE ${IS_SAME_CLAIM}`,
    [...toKey(name), LEASE],
  );
  return { kind: 'claimed', objectId };
}

/**
 * Marks stored objects as created, for objects that no trigger marks.
 * @param sql a transaction of `withOwner(owner, ...)`.
 */
export async function markCreated(sql: Sql, owner: Owner, objectIds: readonly string[]): Promise<void> {
  await sql.run('UPDATE idempotency_keys SET created = true WHERE owner = $1 AND object_id = ANY ($2)', [
    owner,
    objectIds,
  ]);
}
