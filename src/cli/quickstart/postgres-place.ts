import { randomUUID } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { RunAs } from './child.ts';
import { canEnter, unprivilegedUser } from './unprivileged.ts';

export interface PostgresPlace {
  /** The user that Postgres runs as; undefined: ours. */
  runAs: RunAs | undefined;
  /** A folder of that user, closed to others: the cluster is in `data` below it. */
  folder: string;
  /** A folder that the user can get to, for a copy of the binaries. */
  open: string;
}

/** Where root may keep things that another user must reach. */
const OPEN_FOLDER = '/var/lib/ops-center';

/**
 * Decides where the cluster lives: DATA_DIR/postgres. Root with DATA_DIR below a folder that the
 * unprivileged user cannot enter (`/root`) keeps it in `/var/lib/ops-center/<random>` instead; DATA_DIR
 * then holds the path, so deleting DATA_DIR starts afresh there too.
 */
export function postgresPlace(dataDir: string): PostgresPlace {
  const usual = path.join(dataDir, 'postgres');
  const note = path.join(dataDir, 'postgres-location');
  const noted = existsSync(note) ? readFileSync(note, 'utf8').trim() : undefined;
  const runAs = unprivilegedUser(noted ?? usual);
  let folder = noted ?? usual;
  if (noted === undefined && !canEnter(dataDir, runAs)) {
    folder = path.join(OPEN_FOLDER, randomUUID());
    writeFileSync(note, `${folder}\n`, { mode: 0o600 });
  }
  if (folder !== usual) mkdirSync(OPEN_FOLDER, { recursive: true, mode: 0o755 });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (runAs !== undefined) chownSync(folder, runAs.uid, runAs.gid);
  return { runAs, folder, open: folder === usual ? dataDir : OPEN_FOLDER };
}
