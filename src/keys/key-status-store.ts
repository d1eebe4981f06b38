import { z } from 'zod';
import type { Sql } from '../lib/postgres/database.ts';
import type { Owner } from '../lib/owner.ts';
import { notifyOwnerChanged } from './vault-index-store.ts';
import { KEY_TEST_STATUSES, type KeyTestStatus } from './schema.ts';

/** What changes with the use of a key. The key itself is stored in the vault. */
export interface KeyStatus {
  /** This and the next by the clock of the process, like the dates in the vault, so that an owner can compare them. */
  lastUsedAt: Date | null;
  lastTestedAt: Date | null;
  testStatus: KeyTestStatus;
  testMessage: string | null;
  /** The key is not used before this time. */
  cooldownUntil: Date | null;
}

/** `[owner, provider, key id]`, in the order of the primary key. */
type KeyStatusId = readonly [owner: Owner, provider: string, keyId: string];

export const INITIAL_KEY_STATUS: KeyStatus = {
  lastUsedAt: null,
  lastTestedAt: null,
  testStatus: 'untested',
  testMessage: null,
  cooldownUntil: null,
};

const KeyStatusRow = z.object({
  provider: z.string(),
  key_id: z.string(),
  last_used_at: z.date().nullable(),
  last_tested_at: z.date().nullable(),
  test_status: z.enum(KEY_TEST_STATUSES),
  test_message: z.string().nullable(),
  set_aside_until: z.date().nullable(),
});

/** The status of all of an owner's keys, by {@link keyStatusName}. Keys without a row have no entry. */
export async function listKeyStatuses(sql: Sql, owner: Owner): Promise<ReadonlyMap<string, KeyStatus>> {
  const rows = await sql.rows(
    KeyStatusRow,
    `SELECT provider, key_id, last_used_at, last_tested_at, test_status, test_message, set_aside_until
     FROM provider_key_facts WHERE owner = $1`,
    [owner],
  );
  return new Map(
    rows.map((row) => [
      keyStatusName(row.provider, row.key_id),
      {
        lastUsedAt: row.last_used_at,
        lastTestedAt: row.last_tested_at,
        testStatus: row.test_status,
        testMessage: row.test_message,
        cooldownUntil: row.set_aside_until,
      },
    ]),
  );
}

/** Identifies a key among one owner's keys. */
export function keyStatusName(provider: string, keyId: string): string {
  return `${provider}/${keyId}`;
}

/**
 * Starts a cooldown of 1, 5, 30, then 60 minutes. Refusals of requests that were in flight when the cooldown began do
 * not extend it.
 */
export async function startCooldown(
  sql: Sql,
  key: KeyStatusId,
  status: KeyTestStatus,
  message: string,
): Promise<void> {
  const changed = await sql.run(
    `INSERT INTO provider_key_facts AS facts
       (owner, provider, key_id, test_status, test_message, refusals, set_aside_until)
     VALUES ($1, $2, $3, $4, $5, 1, now() + interval '1 minute')
     ON CONFLICT (owner, provider, key_id) DO UPDATE SET
       test_status = excluded.test_status,
       test_message = excluded.test_message,
       refusals = facts.refusals + 1,
       set_aside_until =
         now() + (ARRAY[1, 5, 30, 60])[least(facts.refusals + 1, 4)] * interval '1 minute'
     WHERE facts.set_aside_until IS NULL OR facts.set_aside_until <= now()`,
    [...key, status, message],
  );
  if (changed > 0) await notifyOwnerChanged(sql, key[0]);
}

/**
 * Writes the test status without a cooldown: the key is tried again on each use, which costs nothing. Writes only when
 * the status changes. A condition in the conflict clause alone would still lock, and so write, the row.
 */
export async function writeTestStatus(
  sql: Sql,
  key: KeyStatusId,
  status: KeyTestStatus,
  message: string,
): Promise<void> {
  const changed = await sql.run(
    `INSERT INTO provider_key_facts (owner, provider, key_id, test_status, test_message)
     SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (
       SELECT FROM provider_key_facts
       WHERE owner = $1 AND provider = $2 AND key_id = $3 AND test_status = $4)
     ON CONFLICT (owner, provider, key_id) DO UPDATE SET
       test_status = excluded.test_status, test_message = excluded.test_message`,
    [...key, status, message],
  );
  if (changed > 0) await notifyOwnerChanged(sql, key[0]);
}

/**
 * Writes the time of use and ends a cooldown. A test status of `invalid` or `undecryptable` becomes `valid`.
 * @returns whether more than the time of the last use has changed; all processes are notified then.
 */
export async function writeLastUse(sql: Sql, key: KeyStatusId): Promise<boolean> {
  await sql.run(
    `INSERT INTO provider_key_facts (owner, provider, key_id, last_used_at) VALUES ($1, $2, $3, $4)
     ON CONFLICT (owner, provider, key_id) DO UPDATE SET last_used_at = excluded.last_used_at`,
    [...key, new Date()],
  );
  const changed = await sql.run(
    `UPDATE provider_key_facts SET
       refusals = 0,
       set_aside_until = NULL,
       test_status = CASE WHEN test_status IN ('invalid', 'undecryptable') THEN 'valid' ELSE test_status END,
       test_message =
         CASE WHEN test_status IN ('invalid', 'undecryptable') THEN NULL ELSE test_message END
     WHERE owner = $1 AND provider = $2 AND key_id = $3
       AND (refusals > 0 OR set_aside_until IS NOT NULL OR test_status IN ('invalid', 'undecryptable'))`,
    [...key],
  );
  if (changed > 0) await notifyOwnerChanged(sql, key[0]);
  return changed > 0;
}

interface TestResult {
  status: KeyTestStatus;
  message: string;
}

/** Stores a test result. It ends the cooldown of a working key and starts one for a refused key. */
export async function writeTestResult(
  sql: Sql,
  key: KeyStatusId,
  { status, message }: TestResult,
): Promise<void> {
  const isWorking = status === 'valid' || status === 'unverified';
  await sql.run(
    `INSERT INTO provider_key_facts AS facts
       (owner, provider, key_id, test_status, test_message, last_tested_at)
     VALUES ($1, $2, $3, $4, $5, $7)
     ON CONFLICT (owner, provider, key_id) DO UPDATE SET
       test_status = excluded.test_status,
       test_message = excluded.test_message,
       last_tested_at = excluded.last_tested_at,
       refusals = CASE WHEN $6 THEN 0 ELSE facts.refusals END,
       set_aside_until = CASE WHEN $6 THEN NULL ELSE facts.set_aside_until END`,
    [...key, status, message, isWorking, new Date()],
  );
  await notifyOwnerChanged(sql, key[0]);
  if (status === 'invalid') await startCooldown(sql, key, status, message);
}

/** What a stored change of a pool means for the status of the changed keys. */
export type KeyStatusChange =
  /** The keys are gone or have new content: nothing is known of them but the test before they were stored. */
  | { kind: 'reset'; testResult?: TestResult | undefined }
  /** An edited key is used again at once. */
  | { kind: 'end_cooldown' };

export async function writeStatusChange(
  sql: Sql,
  owner: Owner,
  provider: string,
  keyIds: readonly string[],
  change: KeyStatusChange,
): Promise<void> {
  if (change.kind === 'reset') await deleteKeyStatuses(sql, owner, provider, keyIds);
  for (const keyId of keyIds) {
    const key = [owner, provider, keyId] as const;
    if (change.kind === 'end_cooldown') await endCooldown(sql, key);
    else if (change.testResult !== undefined) await writeTestResult(sql, key, change.testResult);
  }
}

async function endCooldown(sql: Sql, key: KeyStatusId): Promise<void> {
  await sql.run(
    `UPDATE provider_key_facts SET refusals = 0, set_aside_until = NULL
     WHERE owner = $1 AND provider = $2 AND key_id = $3`,
    [...key],
  );
}

async function deleteKeyStatuses(
  sql: Sql,
  owner: Owner,
  provider: string,
  keyIds: readonly string[],
): Promise<void> {
  await sql.run(
    'DELETE FROM provider_key_facts WHERE owner = $1 AND provider = $2 AND key_id = ANY($3::text[])',
    [owner, provider, keyIds],
  );
}
