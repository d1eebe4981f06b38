import { setTimeout as delay } from 'node:timers/promises';
import { isAppError } from '../lib/errors.ts';
import { createPoller } from '../lib/async/poller.ts';
import type { Log } from '../lib/log.ts';
import type { Prices } from './prices.ts';
import type { AnsweredRequest, UsageRecorder } from './record.ts';
import { createRefusalCounts } from './refusal-counts.ts';
import type { PricedRequest, UsageStore } from './usage-store.ts';

export interface UsageWriter extends UsageRecorder {
  /** Begins to write in the background. Resolves after the first round. */
  start(): Promise<void>;
  /** Writes what was recorded. Rejects when the database does not accept it; it is kept then. */
  flush(): Promise<void>;
  /** Ends the writing after a last round of at most {@link STOP_TIMEOUT_MS}. What is not written by then is dropped and counted. */
  stop(): Promise<void>;
}

export interface UsageWriterDeps {
  store: Pick<UsageStore, 'writeRequests' | 'writeRefusals'>;
  prices: Prices;
  log: Log;
  /** Counts requests that are not stored. */
  onDropped: (count: number) => void;
}

/** Between two rounds. What a crash loses was recorded since the last one. */
const INTERVAL_MS = 500;
/** Rows of one write; so many begin the next round at once. */
const MAX_BATCH = 500;
/** Kept while the database is away. A row has about a kilobyte. */
export const MAX_PENDING = 10_000;
const STOP_TIMEOUT_MS = 5_000;

/** Writes requests in batches, beside the requests themselves. */
export function createUsageWriter({ store, prices, log, onDropped }: UsageWriterDeps): UsageWriter {
  let pending: AnsweredRequest[] = [];
  let beingWritten = 0;
  let dropped = 0;
  let round: Promise<void> | undefined;
  const refusals = createRefusalCounts();

  function drop(count: number): void {
    dropped += count;
    onDropped(count);
  }

  /** One line for all requests that were dropped since the last one. */
  function logDropped(): void {
    if (dropped === 0) return;
    log.error({ event: 'usage_dropped', count: dropped }, 'requests are missing in the ledger');
    dropped = 0;
  }

  /** A row that the database refuses must not keep back the others: it is found by halving. */
  async function writeBatch(batch: readonly PricedRequest[]): Promise<void> {
    try {
      await store.writeRequests(batch);
    } catch (error) {
      if (!isRefusedData(error)) throw error;
      if (batch.length === 1) {
        log.error({ err: error, request_id: batch[0]?.requestId }, 'the ledger does not accept a request');
        drop(1);
        return;
      }
      const half = Math.ceil(batch.length / 2);
      await writeBatch(batch.slice(0, half));
      await writeBatch(batch.slice(half));
    }
  }

  async function writePending(): Promise<void> {
    try {
      while (pending.length > 0) {
        const batch = pending.slice(0, MAX_BATCH);
        pending = pending.slice(MAX_BATCH);
        beingWritten = batch.length;
        try {
          await writeBatch(batch.map((request) => toPriced(request, prices)));
        } catch (error) {
          // A part of it may be stored: then the next write skips that part.
          pending = [...batch, ...pending];
          throw error;
        } finally {
          beingWritten = 0;
        }
      }
      await refusals.write((counts) => store.writeRefusals(counts));
    } finally {
      logDropped();
    }
  }

  const flush = () =>
    (round ??= writePending().finally(() => {
      round = undefined;
    }));
  const poller = createPoller('writing the ledger', INTERVAL_MS, flush, log);

  return {
    record(request) {
      if (pending.length + beingWritten >= MAX_PENDING) {
        drop(1);
        return;
      }
      pending.push(request);
      // A failure is reported by the poller, which tries again.
      if (pending.length === MAX_BATCH) void flush().catch(() => undefined);
    },
    recordRefusal: ({ owner, code }) => {
      refusals.add(owner, code);
    },
    flush,
    start: () => poller.start(),
    async stop() {
      const last = poller
        .stop()
        .then(flush)
        .catch((error: unknown) => {
          log.error({ err: error }, 'the last requests could not be written to the ledger');
        });
      await Promise.race([last, delay(STOP_TIMEOUT_MS, undefined, { ref: false })]);
      const left = pending.length + beingWritten;
      pending = [];
      if (left > 0) drop(left);
      logDropped();
    },
  };
}

/** SQLSTATE classes 22, data exceptions, and 23, violated constraints (PostgreSQL documentation, appendix A). */
function isRefusedData(error: unknown): boolean {
  const code = error instanceof Error && !isAppError(error) ? (error as { code?: unknown }).code : undefined;
  return typeof code === 'string' && /^2[23]/.test(code);
}

function toPriced(request: AnsweredRequest, prices: Prices): PricedRequest {
  const { usage, attempts } = request;
  if (usage.costUsd !== null) return { ...request, costUsd: usage.costUsd, costSource: 'provider' };
  // What a cut answer has reported is a part: Anthropic's first event counts one output token.
  if (request.end !== 'done') return { ...request, costUsd: null, costSource: 'unknown' };
  const { provider, model } = attempts.at(-1) ?? { provider: '', model: '' };
  const served = usage.servedModel ?? model;
  const costUsd = prices.findCost(provider, served, usage) ?? prices.findCost(provider, model, usage);
  return { ...request, costUsd, costSource: costUsd === null ? 'unknown' : 'prices' };
}
