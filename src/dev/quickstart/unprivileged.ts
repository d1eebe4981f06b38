import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import type { RunAs } from './child.ts';
import { StartError } from '../../cli/start-error.ts';

/**
 * Postgres refuses to run as root. Started by root it runs as the system's `postgres` user or, without
 * one, as `nobody` (a user without an entry in /etc/passwd is refused by initdb).
 * @param existing a folder that an earlier start made: its owner is kept.
 * @returns undefined when we are not root.
 */
export function getUnprivilegedUser(existing: string): RunAs | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const current = statSync(existing, { throwIfNoEntry: false });
  if (current !== undefined && current.uid !== 0) return { uid: current.uid, gid: current.gid };
  const lines = readFileSync('/etc/passwd', 'utf8').split('\n');
  for (const name of ['postgres', 'nobody']) {
    const [, , uid, gid] = lines.find((line) => line.startsWith(`${name}:`))?.split(':') ?? [];
    if (uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new StartError('Postgres cannot run as root, and /etc/passwd has neither `postgres` nor `nobody`.');
}

/** True when the user can get to `target`: every folder above it, and `target`, may be entered. */
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
