import type { TargetServer } from '../runners/runner.ts';

/**
 * The versions of a server and of those that it goes through. Each fixes what the next one is: where they are the
 * same, so is the place.
 */
export function listServerVersions({ version, jumpServers: references }: TargetServer): number[] {
  return [version, ...[...references.values()].flatMap(listServerVersions)];
}
