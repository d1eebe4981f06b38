import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { SERVER_TYPES } from '../../src/runners/runner.ts';

/** What the names of the files begin with that say which real servers a run met, one `type: what` a line. */
export const SERVERS_USED_PREFIX = 'servers-met';

/**
 * Which real server each runner met in a run, one line per runner, for its end.
 * @param folder the run's evidence
 */
export function summarizeServersUsed(folder: string): string[] {
  const files = readdirSync(folder).filter((name) => name.startsWith(`${SERVERS_USED_PREFIX}-`));
  const lines = files.flatMap((name) => readFileSync(path.join(folder, name), 'utf8').trimEnd().split('\n'));
  return SERVER_TYPES.map((type) => {
    const used = lines
      .filter((line) => line.startsWith(`${type}: `))
      .map((line) => line.slice(type.length + 2));
    return `${type}: ${used.length === 0 ? 'met no server' : [...new Set(used)].join('; ')}`;
  });
}
