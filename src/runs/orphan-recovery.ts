import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Log } from '../lib/log.ts';
import { getUserId } from '../lib/owner.ts';
import { listServerVersions } from '../runners/runner.ts';
import type { ServerOpener } from '../servers/service.ts';
import { createRunExit } from './events.ts';
import type { RunRow, RunsStore } from './runs-store.ts';
import { type RunRef, type RunEncryption } from './run-encryption.ts';

export interface OrphanRecoveryDeps {
  store: Pick<RunsStore, 'findRun' | 'readStoredExtent' | 'finish'>;
  encryption: RunEncryption;
  servers: Pick<ServerOpener, 'openForCleanup'>;
  log: Log;
}

/** Ends runs that were running in a process that has ended. */
export interface OrphanRecovery {
  /** Cleans up a run that this process has taken over, and stores the exit cause `lost`. */
  recover(run: RunRef): void;
  /** The runs whose recovery is running. */
  listPending(): RunRef[];
  settled(): Promise<void>;
}

const CLEANUP_TIMEOUT_MS = 30_000;
const LOST_MESSAGE =
  "The Ops Center process that ran this program has ended, so the program's exit is unknown. Run it again.";

/** If a recovery fails, the lease of the run ends and a process with a later heartbeat tries again. */
export function createOrphanRecovery({
  store,
  encryption,
  servers,
  log,
}: OrphanRecoveryDeps): OrphanRecovery {
  const pending = new Map<string, { run: RunRef; finished: Promise<void> }>();

  async function recoverRun(run: RunRef): Promise<void> {
    const row = await store.findRun(run);
    if (row === undefined) return;
    const cleanup = await Promise.race([
      cleanUp(run, row),
      delay(CLEANUP_TIMEOUT_MS, 'unverified' as const, { ref: false }),
    ]);
    const { lastSeq, total, elapsedMs } = await store.readStoredExtent(run);
    // Until now, since the cleanup may have ended the program.
    const exit = { ...createRunExit('lost', LOST_MESSAGE, cleanup), durationMs: elapsedMs };
    const batches = [encryption.encryptEvents(run, [{ seq: lastSeq + 1, event: exit }])];
    const reencrypt = (ciphertext: string) => encryption.reencryptProgram(run, ciphertext);
    await store.finish(run, { exit, batches, total, lastSeq: lastSeq + 1, reencrypt });
    log.warn({ event: 'run_lost', run: run.id, cleanup }, 'a run was lost because its process has ended');
  }

  /** `unverified` if the server has changed: it may be another host, where no trace of the run is to be found. */
  async function cleanUp(run: RunRef, row: RunRow): Promise<'verified' | 'unverified'> {
    try {
      const { runner, target } = await servers.openForCleanup(getUserId(run.owner), row.server_id);
      const cleanup = await runner.cleanUp(target, run.id);
      return isDeepStrictEqual(listServerVersions(target), row.server_versions) ? cleanup : 'unverified';
    } catch (error) {
      log.warn(
        { err: error, run: run.id },
        'the cleanup of a lost run failed; its exit is stored as unverified',
      );
      return 'unverified';
    }
  }

  return {
    recover(run) {
      const finished = recoverRun(run)
        .catch((error: unknown) => {
          log.warn(
            { err: error, run: run.id },
            'a lost run could not be recovered; a later heartbeat retries',
          );
        })
        .finally(() => pending.delete(run.id));
      pending.set(run.id, { run, finished });
    },
    listPending: () => [...pending.values()].map(({ run }) => run),
    async settled() {
      await Promise.all([...pending.values()].map(({ finished }) => finished));
    },
  };
}
