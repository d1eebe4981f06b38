import type { TargetServer } from '../runners/runner.ts';

/** The versions of a server and of its jump servers. If they are equal, the run is on the same host. */
export function listServerVersions({ version, jumpServers }: TargetServer): number[] {
  return [version, ...[...jumpServers.values()].flatMap(listServerVersions)];
}
