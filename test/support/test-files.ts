import { existsSync } from 'node:fs';
import path from 'node:path';

const TEST_FOLDER = path.resolve(import.meta.dirname, '..');

/**
 * @param names relative to the folder of the tests.
 * @returns their absolute paths.
 * @throws Error for files that do not exist: a renamed one would leave the list without notice.
 */
export function toTestFiles(names: readonly string[]): string[] {
  const missing = names.filter((name) => !existsSync(path.join(TEST_FOLDER, name)));
  if (missing.length > 0) throw new Error(`These test files do not exist: ${missing.join(', ')}`);
  return names.map((name) => path.join(TEST_FOLDER, name));
}
