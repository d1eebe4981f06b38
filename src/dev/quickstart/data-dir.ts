import { chmodSync, existsSync, mkdirSync, realpathSync } from 'node:fs';
import path from 'node:path';
import type { Environment } from '../../config/config.ts';
import { SETTINGS } from '../../config/settings.ts';
import { readSetting } from '../../cli/settings.ts';

/** DATA_DIR as an absolute path. */
export function resolveDataDir(environment: Environment, cwd: string): string {
  return path.resolve(cwd, readSetting(environment, 'DATA_DIR') ?? SETTINGS.DATA_DIR.fallback);
}

/**
 * Makes the data directory, closed to others; started by root it stays enterable (not readable) for the
 * user that Postgres runs as. One that is there already keeps its mode, so what holds secrets below it is
 * closed by itself, at every start.
 * @returns its path without symbolic links, as the programs started from it show it.
 */
export function createDataDir(dataDir: string): string {
  if (!existsSync(dataDir)) {
    mkdirSync(dataDir, { recursive: true });
    chmodSync(dataDir, process.getuid?.() === 0 ? 0o711 : 0o700);
  }
  createPrivateFolder(secretsFolder(dataDir));
  return realpathSync(dataDir);
}

/** Where the secrets that the quick start makes are kept. */
export function secretsFolder(dataDir: string): string {
  return path.join(dataDir, 'secrets');
}

/** Makes a folder that nobody but its owner can enter. One that is there already is closed too. */
export function createPrivateFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  chmodSync(folder, 0o700);
}
