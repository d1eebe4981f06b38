import { z } from 'zod';
import type { Database } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';

const UsageOwnerRow = z.object({ owner: OwnerText });
const TABLES = ['usage_requests', 'usage_days', 'usage_refusals'] as const;

/** The ledger of all owners, for commands and for the removal of users. */
export interface UsageData {
  listOwners(): Promise<Owner[]>;
  /** Deletes the requests, refusals and totals of an owner. */
  remove(owner: Owner): Promise<void>;
}

export function createUsageData(database: Database): UsageData {
  return {
    async listOwners() {
      const rows = await database.rows(UsageOwnerRow, 'SELECT owners_of_usage() AS owner');
      return rows.map(({ owner }) => owner);
    },
    async remove(owner) {
      await database.withOwner(owner, async (sql) => {
        for (const table of TABLES) await sql.run(`DELETE FROM ${table} WHERE owner = $1`, [owner]);
      });
    },
  };
}
