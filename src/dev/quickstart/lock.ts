import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { findStartTime } from './processes.ts';
import { StartError } from '../../cli/start-error.ts';

export interface LockOptions {
  /** The lock file. */
  file: string;
  /** How long to wait for another holder; 0 gives up at once. */
  waitMs: number;
  /** What to say when the other holder stays. */
  busyMessage: (pid: number) => string;
}

interface LockHolder {
  pid: number;
  mark: string;
}

/**
 * Takes a lock that a file holds, named after this process. A lock whose process is gone (killed, or the
 * machine was restarted) counts as free.
 * @returns a function that gives it back.
 * @throws StartError when another process holds it for longer than `waitMs`.
 */
export async function acquireLock(options: LockOptions): Promise<() => void> {
  const untilMs = Date.now() + options.waitMs;
  const own: LockHolder = { pid: process.pid, mark: findStartTime(process.pid) ?? '' };
  for (;;) {
    if (tryAcquire(options.file, own)) {
      return () => {
        if (isSameHolder(readHolder(options.file), own)) rmSync(options.file, { force: true });
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

/** A hard link appears whole or not at all, and only if the name is free. */
function tryAcquire(file: string, own: LockHolder): boolean {
  const draft = `${file}.${own.pid}`;
  writeFileSync(draft, JSON.stringify(own), { mode: 0o600 });
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

/** Two may find the same stale lock: a lock that was taken in between is put back. */
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
