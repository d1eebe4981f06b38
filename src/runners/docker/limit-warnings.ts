import { cannotLimitMessage, DockerError } from './errors.ts';

/**
 * An engine creates a container without a limit that its kernel or its rights do not allow, and reports that
 * in a warning. The texts differ between versions, so only parts are matched.
 */
const LIMIT_DROPPED = /discarded|ignored|not support/i;
const LIMITS: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/memory limit\b/i, 'memory'],
  [/\bpids\b/i, 'processes'],
  [/cpu/i, 'CPUs'],
];
/**
 * Without a swap limit, memory is still limited but may be swapped out. Cgroup namespaces are never
 * requested.
 */
const HARMLESS = /swap limit|cgroup namespace/i;

/**
 * Refuses a container that lacks one of its limits. Default limits count too, because they protect the
 * engine's host. Other warnings, e.g. about disabled IP forwarding, are ignored.
 * @param warnings from the response to "Create a container" (Engine API).
 * @throws DockerError that names the limits without quoting the engine.
 */
export function assertLimitsKept(warnings: readonly string[]): void {
  const lostLimits = warnings.filter((warning) => LIMIT_DROPPED.test(warning)).map(findLostLimit);
  const names = new Set(lostLimits.filter((name) => name !== undefined));
  if (names.size > 0) throw new DockerError(cannotLimitMessage([...names].join(', ')));
}

/**
 * The limit that a warning is about. An unknown warning may be about any limit, so the container is refused.
 */
function findLostLimit(warning: string): string | undefined {
  const known = LIMITS.find(([pattern]) => pattern.test(warning));
  if (known !== undefined) return known[1];
  return HARMLESS.test(warning) ? undefined : 'what a container may use';
}
