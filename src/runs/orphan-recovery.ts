import { setTimeout as rest } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Log } from '../lib/log.ts';
import { getUserId } from '../lib/owner.ts';
import type { ServerOpener } from '../servers/service.ts';
import { createRunExit } from './events.ts';
import type { RunRow, RunsStore } from './runs-store.ts';
import { listServerVersions } from './server-versions.ts';
import { type RunRef, type RunEncryption } from './run-encryption.ts';

export interface OrphanRecoveryDeps {
  store: Pick<RunsStore, 'findRun' | 'findExtent' | 'finish'>;
  seals: RunEncryption;
  servers: Pick<ServerOpener, 'openForReaping'>;
  log: Log;
}

/** Runs that were under way in a process that is gone: what is left of them is ended. */
export interface OrphanRecovery {
  /** Ends a run that this process has taken over, and stores that it was lost. */
  recover(run: RunRef): void;
  /** Those under way. */
  listPending(): RunRef[];
  settled(): Promise<void>;
}

const CLEANUP_TIMEOUT_MS = 30_000;
const LOST_MESSAGE =
  'The process of Ops Center that had this run is gone, and nobody saw how the program ended. Run it again.';

/** Builds it. A run that cannot be cleared away now is left: its lease ends, and whoever sees that tries again. */
export function createOrphanRecovery({ store, seals, servers, log }: OrphanRecoveryDeps): OrphanRecovery {
  const pending = new Map<string, { run: RunRef; over: Promise<void> }>();

  async function recoverRun(run: RunRef): Promise<void> {
    const row = await store.findRun(run);
    if (row === undefined) return;
    const cleanup = await Promise.race([
      reap(run, row),
      rest(CLEANUP_TIMEOUT_MS, 'unverified' as const, { ref: false }),
    ]);
    const exit = createRunExit('lost', LOST_MESSAGE, cleanup);
    const { lastSeq, total } = await store.findExtent(run);
    const batches = [seals.encryptEvents(run, [{ seq: lastSeq + 1, news: exit }])];
    const reseal = (sealed: string) => seals.reencryptProgram(run, sealed);
    await store.finish(run, { exit, batches, total, lastSeq: lastSeq + 1, reseal });
    log.warn({ event: 'run_lost', run: run.id, cleanup }, 'a run was lost with the process that had it');
  }

  /** Where the server was changed meanwhile it may be another place, which finds nothing of a run it never had. */
  async function reap(run: RunRef, row: RunRow): Promise<'verified' | 'unverified'> {
    try {
      const { runner, target } = await servers.openForReaping(getUserId(run.owner), row.server_id);
      const cleanup = await runner.cleanUp(target, run.id);
      return isDeepStrictEqual(listServerVersions(target), row.server_versions) ? cleanup : 'unverified';
    } catch (error) {
      log.warn({ err: error, run: run.id }, 'what is left of a lost run could not be ended');
      return 'unverified';
    }
  }

  return {
    recover(run) {
      const over = recoverRun(run)
        .catch((error: unknown) => {
          log.warn({ err: error, run: run.id }, 'a lost run could not be cleared away; it is tried again');
        })
        .finally(() => pending.delete(run.id));
      pending.set(run.id, { run, over });
    },
    listPending: () => [...pending.values()].map(({ run }) => run),
    async settled() {
      await Promise.all([...pending.values()].map(({ over }) => over));
    },
  };
}
