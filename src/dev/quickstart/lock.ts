import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { findStartTime } from './processes.ts';
import { StartError } from '../../lib/errors.ts';

export interface LockOptions {
  file: string;
  /** How long to wait while another process holds the lock; 0 fails at once. */
  waitMs: number;
  /** Message of the error if the lock is not released in time. */
  busyMessage: (pid: number) => string;
}

interface LockHolder {
  pid: number;
  mark: string;
}

/**
 * Acquires a lock file for this process. The lock of a process that no longer runs (killed, or the machine was
 * restarted) counts as free.
 * @returns function that releases the lock.
 * @throws StartError if another process holds the lock for longer than `waitMs`.
 */
export async function acquireLock(options: LockOptions): Promise<() => void> {
  const untilMs = Date.now() + options.waitMs;
  const self: LockHolder = { pid: process.pid, mark: findStartTime(process.pid) ?? '' };
  for (;;) {
    if (tryAcquire(options.file, self)) {
      return () => {
        if (isSameHolder(readHolder(options.file), self)) rmSync(options.file, { force: true });
      };
    }
    const holder = readHolder(options.file);
    if (holder !== undefined && isHolderRunning(holder)) {
      if (Date.now() >= untilMs) throw new StartError(options.busyMessage(holder.pid));
      await delay(200);
    } else {
      removeStale(options.file, holder);
    }
  }
}

/** Creating a hard link is atomic, and fails if the name exists. */
function tryAcquire(file: string, self: LockHolder): boolean {
  const draft = `${file}.${self.pid}`;
  writeFileSync(draft, JSON.stringify(self), { mode: 0o600 });
  try {
    linkSync(draft, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}

/** Several processes can find the same stale lock. A lock that was acquired in between is restored. */
function removeStale(file: string, stale: LockHolder | undefined): void {
  const movedFile = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}.stale`);
  try {
    renameSync(file, movedFile);
    const moved = readHolder(movedFile);
    if (moved !== undefined && !isSameHolder(moved, stale) && isHolderRunning(moved))
      linkSync(movedFile, file);
  } catch (error) {
    if (!['ENOENT', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  } finally {
    rmSync(movedFile, { force: true });
  }
}

function readHolder(file: string): LockHolder | undefined {
  try {
    const found = JSON.parse(readFileSync(file, 'utf8')) as Partial<LockHolder>;
    return typeof found.pid === 'number' && typeof found.mark === 'string'
      ? { pid: found.pid, mark: found.mark }
      : undefined;
  } catch {
    return undefined;
  }
}

function isHolderRunning(holder: LockHolder): boolean {
  return findStartTime(holder.pid) === holder.mark;
}

function isSameHolder(a: LockHolder | undefined, b: LockHolder | undefined): boolean {
  return a?.pid === b?.pid && a?.mark === b?.mark;
}
