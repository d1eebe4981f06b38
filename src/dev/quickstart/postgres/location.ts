import { randomUUID } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { RunAs } from '../child.ts';
import { canEnter, findUnprivilegedUser } from '../unprivileged.ts';

export interface PostgresLocation {
  /** Unix user that Postgres runs as; undefined: the user of this process. */
  runAs: RunAs | undefined;
  /** Folder of that user, closed to other users. The cluster is in its subfolder `data`. */
  folder: string;
  /** Folder that the user can enter, for a copy of the binaries. */
  binariesParent: string;
}

/** Folder for data that root creates and another user must reach. */
const SHARED_FOLDER = '/var/lib/ops-center';

/**
 * Creates the folder of the cluster: DATA_DIR/postgres. If root starts it and the unprivileged user cannot enter
 * DATA_DIR (below `/root`, for example), the folder is `/var/lib/ops-center/<random>`. Its path is then stored in
 * DATA_DIR, so that deleting DATA_DIR leads to a new cluster.
 */
export function preparePostgresLocation(dataDir: string): PostgresLocation {
  const defaultFolder = path.join(dataDir, 'postgres');
  const locationFile = path.join(dataDir, 'postgres-location');
  const storedFolder = existsSync(locationFile) ? readFileSync(locationFile, 'utf8').trim() : undefined;
  const runAs = findUnprivilegedUser(storedFolder ?? defaultFolder);
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
