import { z } from 'zod';
import { OwnerText, type Owner } from '../lib/owner.ts';
import type { Database, Sql } from '../lib/postgres/database.ts';
import type { OnboardingView, UpdateOnboarding } from './schema.ts';

/** What is stored; the progress is computed. */
export type StoredOnboarding = Omit<OnboardingView, 'progress'>;

const Row = z
  .object({ current_step: z.number(), started_at: z.date(), completed_at: z.date().nullable() })
  .transform(({ current_step, started_at, completed_at }): StoredOnboarding => ({
    current_step,
    started_at: started_at.toISOString(),
    completed_at: completed_at?.toISOString() ?? null,
  }));
const COLUMNS = 'current_step, started_at, completed_at';

/** Reads the owner's row, and adds it at first sight. @param sql a transaction of `withOwner(owner, ...)`. */
export async function readOnboarding(sql: Sql, owner: Owner): Promise<StoredOnboarding> {
  await sql.run('INSERT INTO onboarding (owner) VALUES ($1) ON CONFLICT (owner) DO NOTHING', [owner]);
  return getOnly(await sql.rows(Row, `SELECT ${COLUMNS} FROM onboarding WHERE owner = $1`, [owner]));
}

/** Members that are not given keep their value. Completing twice keeps the first time. */
export async function updateOnboarding(
  sql: Sql,
  owner: Owner,
  { current_step: step, completed }: UpdateOnboarding,
): Promise<StoredOnboarding> {
  await readOnboarding(sql, owner);
  const rows = await sql.rows(
    Row,
    `UPDATE onboarding SET
       current_step = coalesce($2, current_step),
       completed_at = CASE WHEN $3::boolean THEN coalesce(completed_at, now()) WHEN NOT $3 THEN NULL ELSE completed_at END
     WHERE owner = $1 RETURNING ${COLUMNS}`,
    [owner, step ?? null, completed ?? null],
  );
  return getOnly(rows);
}

function getOnly([row]: readonly StoredOnboarding[]): StoredOnboarding {
  if (row === undefined) throw new Error('the row of the introduction was deleted by another transaction');
  return row;
}

/** The rows of all owners, for commands and for the removal of users. */
export interface OnboardingData {
  listOwners(): Promise<Owner[]>;
  remove(owner: Owner): Promise<void>;
}

export function createOnboardingData(database: Database): OnboardingData {
  return {
    async listOwners() {
      const rows = await database.rows(
        z.object({ owner: OwnerText }),
        'SELECT owners_of_onboarding() AS owner',
      );
      return rows.map(({ owner }) => owner);
    },
    async remove(owner) {
      await database.withOwner(owner, (sql) => sql.run('DELETE FROM onboarding WHERE owner = $1', [owner]));
    },
  };
}
