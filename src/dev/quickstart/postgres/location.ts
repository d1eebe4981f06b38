import { randomUUID } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { RunAs } from '../child.ts';
import { canEnter, getUnprivilegedUser } from '../unprivileged.ts';

export interface PostgresLocation {
  /** The user that Postgres runs as; undefined: ours. */
  runAs: RunAs | undefined;
  /** A folder of that user, closed to others: the cluster is in `data` below it. */
  folder: string;
  /** A folder that the user can get to, for a copy of the binaries. */
  binariesParent: string;
}

/** Where root may keep things that another user must reach. */
const SHARED_FOLDER = '/var/lib/ops-center';

/**
 * Decides where the cluster lives: DATA_DIR/postgres. Root with DATA_DIR below a folder that the
 * unprivileged user cannot enter (`/root`) keeps it in `/var/lib/ops-center/<random>` instead; DATA_DIR
 * then holds the path, so deleting DATA_DIR starts afresh there too.
 */
export function preparePostgresLocation(dataDir: string): PostgresLocation {
  const defaultFolder = path.join(dataDir, 'postgres');
  const locationFile = path.join(dataDir, 'postgres-location');
  const storedFolder = existsSync(locationFile) ? readFileSync(locationFile, 'utf8').trim() : undefined;
  const runAs = getUnprivilegedUser(storedFolder ?? defaultFolder);
  let folder = storedFolder ?? defaultFolder;
  if (storedFolder === undefined && !canEnter(dataDir, runAs)) {
    folder = path.join(SHARED_FOLDER, randomUUID());
    writeFileSync(locationFile, `${folder}\n`, { mode: 0o600 });
  }
  if (folder !== defaultFolder) mkdirSync(SHARED_FOLDER, { recursive: true, mode: 0o755 });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (runAs !== undefined) chownSync(folder, runAs.uid, runAs.gid);
  return { runAs, folder, binariesParent: folder === defaultFolder ? dataDir : SHARED_FOLDER };
}
