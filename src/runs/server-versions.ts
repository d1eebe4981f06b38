import type { Target } from '../runners/runner.ts';

/**
 * The versions of a server and of those that it goes through. Each fixes what the next one is: where they are the
 * same, so is the place.
 */
export function versionsOf({ version, references }: Target): number[] {
  return [version, ...[...references.values()].flatMap(versionsOf)];
}
