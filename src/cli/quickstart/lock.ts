import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { startMark } from './processes.ts';
import { StartError } from '../start-error.ts';

export interface LockOptions {
  /** The lock file. */
  file: string;
  /** How long to wait for another holder; 0 gives up at once. */
  waitMs: number;
  /** What to say when the other holder stays. */
  busyMessage: (pid: number) => string;
}

interface Holder {
  pid: number;
  mark: string;
}

/**
 * Takes a lock that a file holds, named after this process. A lock whose process is gone (killed, or the
 * machine was restarted) counts as free.
 * @returns a function that gives it back.
 * @throws StartError when another process holds it for longer than `waitMs`.
 */
export async function takeLock(options: LockOptions): Promise<() => void> {
  const untilMs = Date.now() + options.waitMs;
  const own: Holder = { pid: process.pid, mark: startMark(process.pid) ?? '' };
  for (;;) {
    if (tryToTake(options.file, own)) {
      return () => {
        if (sameHolder(readHolder(options.file), own)) rmSync(options.file, { force: true });
      };
    }
    const holder = readHolder(options.file);
    if (holder !== undefined && isPresent(holder)) {
      if (Date.now() >= untilMs) throw new StartError(options.busyMessage(holder.pid));
      await delay(200);
    } else {
      removeStale(options.file, holder);
    }
  }
}

/** A hard link appears whole or not at all, and only if the name is free. */
function tryToTake(file: string, own: Holder): boolean {
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
function removeStale(file: string, stale: Holder | undefined): void {
  const aside = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}.stale`);
  try {
    renameSync(file, aside);
    const moved = readHolder(aside);
    if (moved !== undefined && !sameHolder(moved, stale) && isPresent(moved)) linkSync(aside, file);
  } catch (error) {
    if (!['ENOENT', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  } finally {
    rmSync(aside, { force: true });
  }
}

function readHolder(file: string): Holder | undefined {
  try {
    const found = JSON.parse(readFileSync(file, 'utf8')) as Partial<Holder>;
    return typeof found.pid === 'number' && typeof found.mark === 'string'
      ? { pid: found.pid, mark: found.mark }
      : undefined;
  } catch {
    return undefined;
  }
}

function isPresent(holder: Holder): boolean {
  return startMark(holder.pid) === holder.mark;
}

function sameHolder(a: Holder | undefined, b: Holder | undefined): boolean {
  return a?.pid === b?.pid && a?.mark === b?.mark;
}
