import { posix } from 'node:path';
import { z } from 'zod';
import { refuseHiddenCharacters } from '../../lib/visible-text.ts';
import { SCRATCH_FOLDER } from './script.ts';

/** Volume names (Engine API, "Create a volume"). */
const VOLUME_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const MAX_PATH_LENGTH = 512;
const MAX_VOLUMES = 16;

/**
 * Folders that give control of the engine's host: devices, kernel settings, sockets of services (including
 * the engine's), and the engine's data. Compared in lower case, because some file systems ignore case.
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

const pathText = z.string().max(MAX_PATH_LENGTH).superRefine(refuseHiddenCharacters);

const volume = z.strictObject({
  source: pathText.superRefine((source, context) => {
    const issue = findSourceIssue(source);
    if (issue !== undefined) context.addIssue({ code: 'custom', message: issue });
  }),
  target: pathText.superRefine((target, context) => {
    const issue = findTargetIssue(target);
    if (issue !== undefined) context.addIssue({ code: 'custom', message: issue });
  }),
  read_only: z.boolean().default(false),
});

/** Volumes as on the wire: named volumes, or folders of the engine's host. */
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
  if (hasDotSegments(source)) return 'Write the path without . and .. segments.';
  const path = normalizePath(source);
  if (path === '/') return 'The root folder of the host cannot be a volume: it gives control of the host.';
  if (path.split('/').some((name) => name.endsWith('.sock')))
    return 'A socket cannot be a volume: the socket of the engine gives control of its host.';
  // Both directions, because a parent folder contains the protected one.
  if (HOST_FOLDERS.some((folder) => isWithin(path, folder) || isWithin(folder, path)))
    return 'This folder cannot be a volume: it gives control of the host, or holds the socket of the engine.';
  return undefined;
}

function findTargetIssue(target: string): string | undefined {
  if (!target.startsWith('/')) return 'A target is a path in the container that begins with /.';
  if (hasDotSegments(target)) return 'Write the path without . and .. segments.';
  const path = normalizePath(target);
  if (path === '/') return 'A volume cannot replace the root folder of the container.';
  if (CONTAINER_FOLDERS.some((folder) => isWithin(path, folder)))
    return "A volume cannot replace the container's own devices and settings.";
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
