import { chmodSync, existsSync, mkdirSync, realpathSync } from 'node:fs';
import path from 'node:path';
import type { Environment } from '../../config.ts';
import { SETTINGS } from '../../config.ts';

/** DATA_DIR as an absolute path. */
export function dataDirOf(environment: Environment, cwd: string): string {
  const named = environment['DATA_DIR'];
  return path.resolve(cwd, named === undefined || named === '' ? SETTINGS.DATA_DIR.fallback : named);
}

/**
 * Makes the data directory, closed to others; started by root it stays enterable (not readable) for the
 * user that Postgres runs as. One that is there already keeps its mode.
 * @returns its path without symbolic links, as the programs started from it show it.
 */
export function makeDataDir(dataDir: string): string {
  if (!existsSync(dataDir)) {
    mkdirSync(dataDir, { recursive: true });
    chmodSync(dataDir, process.getuid?.() === 0 ? 0o711 : 0o700);
  }
  return realpathSync(dataDir);
}
