import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import type { RunAs } from './child.ts';
import { StartError } from '../../lib/errors.ts';

/**
 * Returns the Unix user for Postgres, which refuses to run as root: the user postgres, or the user nobody if that does
 * not exist. (initdb refuses a user without an entry in /etc/passwd.)
 * @param existing folder of an earlier start. If it exists, its owner is used.
 * @returns undefined if this process does not run as root.
 */
export function findUnprivilegedUser(existing: string): RunAs | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const current = statSync(existing, { throwIfNoEntry: false });
  if (current !== undefined && current.uid !== 0) return { uid: current.uid, gid: current.gid };
  const lines = readFileSync('/etc/passwd', 'utf8').split('\n');
  for (const name of ['postgres', 'nobody']) {
    const [, , uid, gid] = lines.find((line) => line.startsWith(`${name}:`))?.split(':') ?? [];
    if (uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new StartError('Postgres cannot run as root. Create a user `postgres`, or start as another user.');
}

/** Returns true if the user can enter `target` and every folder above it. */
export function canEnter(target: string, user: RunAs | undefined): boolean {
  if (user === undefined) return true;
  for (let folder = path.resolve(target); ; folder = path.dirname(folder)) {
    const found = statSync(folder, { throwIfNoEntry: false });
    if (found !== undefined && !canEnterFolder(found, user)) return false;
    if (folder === path.dirname(folder)) return true;
  }
}

function canEnterFolder(found: { uid: number; gid: number; mode: number }, user: RunAs): boolean {
  if (found.uid === user.uid) return (found.mode & 0o100) !== 0;
  if (found.gid === user.gid) return (found.mode & 0o010) !== 0;
  return (found.mode & 0o001) !== 0;
}
