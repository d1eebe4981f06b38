import { existsSync, lstatSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Job, Language } from '../runner.ts';
import { createSeccompFilter } from './seccomp.ts';
import type { Staging } from './staging.ts';
import type { Architecture } from './syscalls.ts';

/** The folders of a sandbox that can be written to. All are memory, and gone with it. */
export const WRITABLE_FOLDERS = ['/work', '/tmp'] as const;
const MAX_FOLDER_BYTES = 256 * 2 ** 20;
/** What a program must see to run at all. The rest of the machine is not there. */
const PROGRAM_FOLDERS = ['/usr'];
const PROGRAM_LINKS = ['/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32'];
const PROGRAM_SETTINGS = ['/etc/alternatives', '/etc/ld.so.cache'];

/** Inside; outside it is a uid that nobody else has. */
const UID = '1000';
const PASSWD = Buffer.from(`runner:x:${UID}:${UID}::/work:/bin/sh\n`);
const GROUP = Buffer.from(`runner:x:${UID}:\n`);
const PROGRAM_FILE = '/run/program';
const RUNTIME_FILE = '/run/node';

const INTERPRETERS: Record<Language, string> = { python: 'python3', javascript: 'node', bash: 'bash' };
const EXTENSIONS: Record<Language, string> = { python: 'py', javascript: 'js', bash: 'sh' };

/** The folder for a job that asks for one; undefined where it is none of those, since nothing else could be written to. */
export function findWorkingFolder(asked: string | null): string | undefined {
  return asked === null ? WRITABLE_FOLDERS[0] : WRITABLE_FOLDERS.find((folder) => folder === asked);
}

export interface BwrapArguments {
  /** The options of bwrap as it reads them from a descriptor, where the list of processes does not show them. */
  options: Buffer;
  /** The interpreter and its file. */
  command: readonly [interpreter: string, file: string];
  /** The folder in which the program starts. */
  folder: string;
}

export interface SandboxOptions {
  architecture: Architecture;
  /** What of the product no program may see. */
  hiddenPaths: readonly string[];
  /** The file of a Node that runs JavaScript in place of the one that the machine has for programs. */
  runtime?: string;
}

/**
 * Puts a job into the terms of bwrap. Files are staged: bwrap copies them into the sandbox before it starts.
 * @throws Error for a job that no route lets through: a path that leaves its folder, a NUL in a name or value.
 */
export function createBwrapArguments(
  job: Job,
  folder: string,
  staging: Staging,
  options: SandboxOptions,
): BwrapArguments {
  const source = createSourceFile(job, folder, options.runtime);
  const files = job.files.map((each) => ({ path: toSandboxPath(folder, each.path), content: each.content }));
  const args = [
    ...isolationArguments(staging.file(createSeccompFilter(options.architecture))),
    ...programArguments(),
    ...hiddenPathArguments(options.hiddenPaths),
    ...writableFolderArguments(),
    ...(options.runtime === undefined
      ? []
      : ['--ro-bind-fd', String(staging.open(options.runtime)), RUNTIME_FILE]),
    ...[...files, source, { path: '/etc/passwd', content: PASSWD }, { path: '/etc/group', content: GROUP }]
      .map((each) => ['--perms', '0644', '--file', String(staging.file(each.content)), each.path])
      .flat(),
    ...['--remount-ro', '/', '--clearenv'],
    ...Object.entries({ ...ENVIRONMENT, ...job.env }).flatMap(([name, value]) => ['--setenv', name, value]),
  ];
  if (args.some((each) => each.includes('\0'))) throw new Error('a job holds a NUL where none can be');
  return { options: Buffer.from(args.join('\0')), command: [source.interpreter, source.path], folder };
}

const ENVIRONMENT = {
  PATH: '/usr/local/bin:/usr/bin:/bin',
  HOME: '/work',
  LANG: 'C.UTF-8',
  TMPDIR: '/tmp',
};

/** Beside the files of the job, so that it finds them; a command has no name of its own to be found by. */
function createSourceFile({ program, files }: Job, folder: string, runtime?: string) {
  if ('command' in program)
    return { interpreter: '/bin/sh', path: PROGRAM_FILE, content: Buffer.from(program.command) };
  let name = `main.${EXTENSIONS[program.language]}`;
  while (files.some((file) => path.posix.normalize(file.path) === name)) name = `_${name}`;
  const interpreter = runtime === undefined ? INTERPRETERS[program.language] : RUNTIME_FILE;
  return { interpreter, path: path.posix.join(folder, name), content: Buffer.from(program.code) };
}

function toSandboxPath(folder: string, relative: string): string {
  const whole = path.posix.join(folder, relative);
  if (!whole.startsWith(`${folder}/`) || path.posix.isAbsolute(relative))
    throw new Error('a file of a job lies outside of its folder');
  return whole;
}

function isolationArguments(filter: number): string[] {
  return [
    ...['--unshare-all', '--unshare-user', '--disable-userns', '--die-with-parent', '--new-session'],
    ...['--uid', UID, '--gid', UID, '--hostname', 'sandbox', '--seccomp', String(filter)],
  ];
}

function programArguments(): string[] {
  return [
    ...PROGRAM_FOLDERS.flatMap((folder) => ['--ro-bind', folder, folder]),
    ...PROGRAM_LINKS.filter((name) => existsSync(name)).flatMap((name) =>
      lstatSync(name).isSymbolicLink() ? ['--symlink', readlinkSync(name), name] : ['--ro-bind', name, name],
    ),
    ...PROGRAM_SETTINGS.flatMap((name) => ['--ro-bind-try', name, name]),
  ];
}

/** What of the product lies among the programs, as in a container image. The rest is not there to begin with. */
function hiddenPathArguments(paths: readonly string[]): string[] {
  const roots = [...PROGRAM_FOLDERS, ...PROGRAM_LINKS, ...PROGRAM_SETTINGS].filter((name) =>
    existsSync(name),
  );
  return paths
    .filter((name) => existsSync(name))
    .map((name) => realpathSync(name))
    .filter((name) => roots.some((root) => name.startsWith(`${realpathSync(root)}/`)))
    .flatMap((name) =>
      statSync(name).isDirectory()
        ? ['--perms', '0555', '--size', '4096', '--tmpfs', name, '--remount-ro', name]
        : ['--ro-bind', '/dev/null', name],
    );
}

function writableFolderArguments(): string[] {
  const memory = (folder: string) => ['--size', String(MAX_FOLDER_BYTES), '--tmpfs', folder];
  return [
    ...['--proc', '/proc', '--dev', '/dev'],
    ...memory('/dev/shm'),
    ...['--remount-ro', '/dev'],
    ...WRITABLE_FOLDERS.flatMap(memory),
  ];
}
