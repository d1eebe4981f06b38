import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { SERVER_TYPES } from '../../src/runners/runner.ts';

/** Name prefix of the files that record the real servers of a run, one `type: description` per line. */
export const SERVERS_USED_PREFIX = 'servers-used';

/**
 * Lists the real servers that each runner used in a run, one line per runner.
 * @param folder the run's evidence
 */
export function summarizeServersUsed(folder: string): string[] {
  const files = readdirSync(folder).filter((name) => name.startsWith(`${SERVERS_USED_PREFIX}-`));
  const lines = files.flatMap((name) => readFileSync(path.join(folder, name), 'utf8').trimEnd().split('\n'));
  return SERVER_TYPES.map((type) => {
    const used = lines
      .filter((line) => line.startsWith(`${type}: `))
      .map((line) => line.slice(type.length + 2));
    return `${type}: ${used.length === 0 ? 'no server used' : [...new Set(used)].join('; ')}`;
  });
}
