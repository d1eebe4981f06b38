import { DockerError } from './errors.ts';

/**
 * An engine makes a container without a limit that its kernel, or its rights, do not let it set, and says so in a
 * warning. The words differ between versions, so only parts are looked for.
 */
const DISCARDED = /discarded|ignored|not support/i;
const LIMITS: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/memory limit\b/i, 'memory'],
  [/\bpids\b/i, 'processes'],
  [/cpu/i, 'CPUs'],
];
/** Without the first, memory is limited still, though some of it may be swapped out; nobody asks for the second. */
const HARMLESS = /swap limit|cgroup namespace/i;

/**
 * Refuses a container that has lost one of its limits: those protect the engine's host also where nobody asked for
 * them. Other warnings, such as that of a host that forwards no packets, are no reason.
 * @param warnings of the engine's answer to "Create a container" (Engine API).
 * @throws DockerFault that names the limits, in no words of the engine's.
 */
export function assertLimitsKept(warnings: readonly string[]): void {
  const lostLimits = warnings.filter((warning) => DISCARDED.test(warning)).map(findLostLimit);
  const names = new Set(lostLimits.filter((name) => name !== undefined));
  if (names.size > 0) throw new DockerError(cannotLimitMessage([...names].join(', ')));
}

/** What cannot be limited, for people. */
export function cannotLimitMessage(names: string): string {
  return `The engine cannot limit ${names}, so nothing runs there. Its host must have the cgroup controllers for that.`;
}

/** What a warning is about. Of one that is not known, what is lost cannot be told, and so it is not borne either. */
function findLostLimit(warning: string): string | undefined {
  const known = LIMITS.find(([pattern]) => pattern.test(warning));
  if (known !== undefined) return known[1];
  return HARMLESS.test(warning) ? undefined : 'what a container may use';
}
