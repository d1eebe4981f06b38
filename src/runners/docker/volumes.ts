import { posix } from 'node:path';
import { z } from 'zod';
import { SCRATCH_FOLDER } from './script.ts';

/** As the engine names them (Engine API, "Create a volume"). */
const VOLUME_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const MAX_PATH_LENGTH = 512;
const MAX_VOLUMES = 16;

/**
 * Folders of an engine's host that open the host itself: devices, the kernel's settings, sockets of services (the
 * engine's own among them), and the engine's data. Compared in lower case, as some file systems do.
 */
const HOST_FOLDERS = [
  '/proc',
  '/sys',
  '/dev',
  '/run',
  '/var/run',
  '/private/var/run',
  '/var/lib/docker',
  '/var/lib/containerd',
  '/var/lib/kubelet',
  '/boot',
  '/etc',
];
/** Folders of a container that a volume would break. */
const CONTAINER_FOLDERS = ['/proc', '/sys', '/dev'];

const NO_CONTROL_CHARACTERS = /^[^\p{Cc}\p{Cf}]*$/u;
const pathText = z
  .string()
  .max(MAX_PATH_LENGTH)
  .regex(NO_CONTROL_CHARACTERS, 'A path holds no control characters.');

const volume = z.strictObject({
  source: pathText.superRefine((source, context) => {
    const fault = findSourceIssue(source);
    if (fault !== undefined) context.addIssue({ code: 'custom', message: fault });
  }),
  target: pathText.superRefine((target, context) => {
    const fault = findTargetIssue(target);
    if (fault !== undefined) context.addIssue({ code: 'custom', message: fault });
  }),
  read_only: z.boolean().default(false),
});

/** Volumes as on the wire: named ones, or folders of the engine's own host. */
export const dockerVolumes = z
  .array(volume)
  .max(MAX_VOLUMES)
  .superRefine((list, context) => {
    const targets = list.map(({ target }) => posix.normalize(target).replace(/\/$/, ''));
    if (new Set(targets).size < targets.length)
      context.addIssue({ code: 'custom', message: 'Two volumes have the same target.' });
  });

function findSourceIssue(source: string): string | undefined {
  if (!source.startsWith('/')) {
    return VOLUME_NAME.test(source)
      ? undefined
      : "A source is a volume's name (letters, digits, _ . -) or a path that begins with /.";
  }
  if (hasDotSegments(source)) return 'A path is written without . and .. in it.';
  const path = normalizePath(source);
  if (path === '/') return 'The root folder of the host cannot be a volume: whoever has it has the host.';
  if (path.split('/').some((name) => name.endsWith('.sock')))
    return 'A socket cannot be a volume: whoever has the socket of the engine has its host.';
  // In both directions: a folder above holds what is below.
  if (HOST_FOLDERS.some((folder) => isWithin(path, folder) || isWithin(folder, path)))
    return 'This folder cannot be a volume: it holds what controls the host, or the socket of the engine.';
  return undefined;
}

function findTargetIssue(target: string): string | undefined {
  if (!target.startsWith('/')) return 'A target is a path in the container that begins with /.';
  if (hasDotSegments(target)) return 'A path is written without . and .. in it.';
  const path = normalizePath(target);
  if (path === '/') return 'A volume cannot take the place of the root folder of the container.';
  if (CONTAINER_FOLDERS.some((folder) => isWithin(path, folder)))
    return "A volume cannot take the place of the container's own devices and settings.";
  if (isWithin(path, SCRATCH_FOLDER)) return `${SCRATCH_FOLDER} is kept in memory: choose another target.`;
  return undefined;
}

function hasDotSegments(path: string): boolean {
  return path.split('/').some((name) => name === '.' || name === '..');
}

/** `//Var//run/` -> `/var/run`. */
function normalizePath(path: string): string {
  return `/${path.toLowerCase().split('/').filter(Boolean).join('/')}`;
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`);
}
