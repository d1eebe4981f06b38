import { withSessionLock } from '../../lib/postgres/advisory-lock.ts';
import type { Database } from '../../lib/postgres/database.ts';
import { UnfitError } from '../../lib/errors.ts';

const LOCK_NAME = 'ops-center command that writes stored keys';

/**
 * Runs a command that writes stored keys while no other such command runs: `vault move` would lose concurrent writes.
 * @throws UnfitError when another such command runs.
 */
export function withCommandLock<T>(database: Database, work: () => Promise<T>): Promise<T> {
  return withSessionLock(database, { name: LOCK_NAME, createBusyError: anotherCommandRuns }, work);
}

function anotherCommandRuns(): UnfitError {
  return new UnfitError(
    'Another command is writing stored keys ("keys rotate", "keys import-legacy", "vault purge" or "vault move"). ' +
      'Run this command again when the other one has ended.',
  );
}
