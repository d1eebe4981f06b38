import { readdirSync, readFileSync } from 'node:fs';

/** Linux, `fcntl.h`. */
const O_CLOEXEC = 0o2_000_000;

/**
 * The descriptors of this process that a child would inherit: those without close-on-exec. Node marks what it opens
 * itself, but not everything that the process was started with.
 */
export function listInheritableDescriptors(): number[] {
  return readdirSync('/proc/self/fdinfo')
    .map(Number)
    .filter((descriptor) => {
      const flags = readFlags(descriptor);
      return flags !== undefined && (flags & O_CLOEXEC) === 0;
    });
}

/** Undefined for a descriptor that was closed meanwhile, such as that of the listed folder. */
function readFlags(descriptor: number): number | undefined {
  try {
    const info = readFileSync(`/proc/self/fdinfo/${descriptor}`, 'latin1');
    return Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(info)?.[1] ?? '0', 8);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
