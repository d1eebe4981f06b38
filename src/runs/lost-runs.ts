import { setTimeout as rest } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Log } from '../lib/log.ts';
import { getUserId } from '../lib/owner.ts';
import type { ServerUse } from '../servers/service.ts';
import { exitWithout } from './events.ts';
import type { RunRow, RunsStore } from './runs-store.ts';
import { versionsOf } from './server-versions.ts';
import { type RunName, type RunSeals } from './sealed.ts';

export interface LostRunsDeps {
  store: Pick<RunsStore, 'findRun' | 'findExtent' | 'finish'>;
  seals: RunSeals;
  servers: Pick<ServerUse, 'openForReaping'>;
  log: Log;
}

/** Runs that were under way in a process that is gone: what is left of them is ended. */
export interface LostRuns {
  /** Ends a run that this process has taken over, and stores that it was lost. */
  clearAway(run: RunName): void;
  /** Those under way. */
  names(): RunName[];
  settled(): Promise<void>;
}

const REAP_WITHIN_MS = 30_000;
const MESSAGE =
  'The process of Ops Center that had this run is gone, and nobody saw how the program ended. Run it again.';

/** Builds it. A run that cannot be cleared away now is left: its lease ends, and whoever sees that tries again. */
export function createLostRuns({ store, seals, servers, log }: LostRunsDeps): LostRuns {
  const underWay = new Map<string, { run: RunName; over: Promise<void> }>();

  async function clear(run: RunName): Promise<void> {
    const row = await store.findRun(run);
    if (row === undefined) return;
    const cleanup = await Promise.race([
      reap(run, row),
      rest(REAP_WITHIN_MS, 'unverified' as const, { ref: false }),
    ]);
    const exit = exitWithout('lost', MESSAGE, cleanup);
    const { lastSeq, total } = await store.findExtent(run);
    const batches = [seals.sealEvents(run, [{ seq: lastSeq + 1, news: exit }])];
    const reseal = (sealed: string) => seals.sealProgramOf(run, sealed);
    await store.finish(run, { exit, batches, total, lastSeq: lastSeq + 1, reseal });
    log.warn({ event: 'run_lost', run: run.id, cleanup }, 'a run was lost with the process that had it');
  }

  /** Where the server was changed meanwhile it may be another place, which finds nothing of a run it never had. */
  async function reap(run: RunName, row: RunRow): Promise<'verified' | 'unverified'> {
    try {
      const { runner, target } = await servers.openForReaping(getUserId(run.owner), row.server_id);
      const cleanup = await runner.reap(target, run.id);
      return isDeepStrictEqual(versionsOf(target), row.server_versions) ? cleanup : 'unverified';
    } catch (error) {
      log.warn({ err: error, run: run.id }, 'what is left of a lost run could not be ended');
      return 'unverified';
    }
  }

  return {
    clearAway(run) {
      const over = clear(run)
        .catch((error: unknown) => {
          log.warn({ err: error, run: run.id }, 'a lost run could not be cleared away; it is tried again');
        })
        .finally(() => underWay.delete(run.id));
      underWay.set(run.id, { run, over });
    },
    names: () => [...underWay.values()].map(({ run }) => run),
    async settled() {
      await Promise.all([...underWay.values()].map(({ over }) => over));
    },
  };
}
