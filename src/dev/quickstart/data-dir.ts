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
 * Creates the data directory with access for its owner only. If root starts it, other users can enter it (not read
 * it), because Postgres runs as another user. An existing directory keeps its mode, so the folder for secrets is
 * restricted separately at every start.
 * @returns path without symbolic links, as in the command lines of programs started from it.
 */
export function createDataDir(dataDir: string): string {
  if (!existsSync(dataDir)) {
    mkdirSync(dataDir, { recursive: true });
    chmodSync(dataDir, process.getuid?.() === 0 ? 0o711 : 0o700);
  }
  createPrivateFolder(secretsFolder(dataDir));
  return realpathSync(dataDir);
}

/** Folder of the secrets that the quick start generates. */
export function secretsFolder(dataDir: string): string {
  return path.join(dataDir, 'secrets');
}

/** Creates a folder that only its owner can enter. Restricts the mode of an existing folder too. */
export function createPrivateFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  chmodSync(folder, 0o700);
}
