import { createPoller } from '../lib/async/poller.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { Log } from '../lib/log.ts';
import { userOwner } from '../lib/owner.ts';
import { loadPrices, type Prices } from './prices.ts';
import type { UsageRecorder } from './record.ts';
import { createUsageData } from './usage-data.ts';
import { createUsageWriter } from './usage-recorder.ts';
import { createUsageStore } from './usage-store.ts';
import { createUserUsage, type UserUsage } from './user-usage.ts';

export { createUsageData } from './usage-data.ts';
export type { AnswerEnd, AttemptRecord, TokenUsage, UsageRecorder } from './record.ts';

export interface UsageServiceDeps {
  database: Database;
  log: Log;
  /** How long requests are kept. The totals of the days are kept for ever. */
  usageDays: number;
  /** Counts requests that could not be stored. */
  onDropped: (count: number) => void;
}

/** The ledger: what each request cost, who paid for it, and how it ended. */
export interface UsageService extends UserUsage {
  recorder: UsageRecorder;
  /** Deletes the ledger of a deleted user. */
  removeUser(userId: string): Promise<void>;
  /** Loads the prices, and starts writing and pruning. */
  start(): Promise<void>;
  /** Writes what was recorded, for some seconds at most. Call when no request is open. */
  stop(): Promise<void>;
}

const PRUNE_INTERVAL_MS = 10 * 60_000;

/** Sends no query before `start` or a request. */
export function createUsageService({ database, log, usageDays, onDropped }: UsageServiceDeps): UsageService {
  const store = createUsageStore(database);
  let loaded: Prices | undefined;
  const prices: Prices = { findCost: (...args) => loaded?.findCost(...args) ?? null };
  const writer = createUsageWriter({ store, prices, log, onDropped });
  const pruner = createPoller('pruning the ledger', PRUNE_INTERVAL_MS, () => store.prune(usageDays), log);
  return {
    ...createUserUsage(store),
    recorder: writer,
    removeUser: (userId) => createUsageData(database).remove(userOwner(userId)),
    async start() {
      loaded = await loadPrices();
      await Promise.all([writer.start(), pruner.start()]);
    },
    async stop() {
      await pruner.stop();
      await writer.stop();
    },
  };
}
