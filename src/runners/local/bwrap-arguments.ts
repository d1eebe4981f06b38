import { existsSync, lstatSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Job } from '../runner.ts';
import { createSetupArguments, type Setup } from '../setup.ts';
import { INTERPRETERS, isVariableName, quoteForShell } from '../shell.ts';
import { createSeccompFilter } from './seccomp.ts';
import type { Staging } from './staging.ts';
import type { Architecture } from './syscalls.ts';

/** The writable folders of a sandbox. They are in memory and disappear with it. */
export const WRITABLE_FOLDERS = ['/work', '/tmp'] as const;
const MAX_FOLDER_BYTES = 256 * 2 ** 20;
/** The paths of the machine that programs need. No other path of the machine is visible in a sandbox. */
const PROGRAM_FOLDERS = ['/usr'];
const PROGRAM_LINKS = ['/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32'];
const PROGRAM_SETTINGS = ['/etc/alternatives', '/etc/ld.so.cache'];

/** The user id inside the sandbox. Outside, each run has its own. */
const UID = '1000';
const PASSWD = Buffer.from(`runner:x:${UID}:${UID}::/work:/bin/sh\n`);
const GROUP = Buffer.from(`runner:x:${UID}:\n`);
const PROGRAM_FILE = '/run/program';
const VARIABLES_FILE = '/run/environment';
/** Where `SandboxOptions.runtime` is in the sandbox. */
export const RUNTIME_FILE = '/run/node';

/** The requested working folder, by default `/work`; undefined if it is not one of the writable folders. */
export function findWorkingFolder(requested: string | null): string | undefined {
  return requested === null ? WRITABLE_FOLDERS[0] : WRITABLE_FOLDERS.find((folder) => folder === requested);
}

export interface BwrapArguments {
  /** NUL-separated options. bwrap reads them from a descriptor, so that the process list does not show them. */
  options: Buffer;
  /** The interpreter and its file, or the shell that runs the set-up before. */
  command: readonly string[];
  /** The folder in which the program starts. */
  folder: string;
  /** A shell script in the sandbox that sets the job's variables. bwrap and its processes do not receive them. */
  variables: string;
}

export interface SandboxOptions {
  architecture: Architecture;
  /** Paths of the product that no program may see. */
  hiddenPaths: readonly string[];
  /** A Node executable for JavaScript, instead of the machine's. */
  runtime?: string;
  /** Then the markers of the set-up are in the output of the program. */
  setup?: Setup | undefined;
}

/**
 * Creates the arguments of bwrap for a job. Files are staged: bwrap copies them into the sandbox before the start.
 * @throws Error for a path outside of the folder, an invalid name of a variable, or a NUL in a name or value; the routes
 *   already refuse them.
 */
export function createBwrapArguments(
  job: Job,
  folder: string,
  staging: Staging,
  options: SandboxOptions,
): BwrapArguments {
  const source = createSourceFile(job, folder, options.runtime);
  const files = job.files.map((item) => ({ path: toSandboxPath(folder, item.path), content: item.content }));
  const variables = {
    path: VARIABLES_FILE,
    content: createVariablesScript({ ...job.env, ...options.setup?.env }),
  };
  const args = [
    ...isolationArguments(staging.file(createSeccompFilter(options.architecture))),
    ...programArguments(),
    ...hiddenPathArguments(options.hiddenPaths),
    ...writableFolderArguments(),
    ...(options.runtime === undefined
      ? []
      : ['--ro-bind-fd', String(staging.open(options.runtime)), RUNTIME_FILE]),
    ...[
      ...files,
      source,
      variables,
      { path: '/etc/passwd', content: PASSWD },
      { path: '/etc/group', content: GROUP },
    ]
      .map((item) => ['--perms', '0644', '--file', String(staging.file(item.content)), item.path])
      .flat(),
    ...['--remount-ro', '/', '--clearenv'],
    ...Object.entries(ENVIRONMENT).flatMap(([name, value]) => ['--setenv', name, value]),
  ];
  if (args.some((item) => item.includes('\0')))
    throw new Error('a job contains a NUL character in a name or value');
  return {
    options: Buffer.from(args.join('\0')),
    command: createCommand(source, options.setup),
    folder,
    variables: variables.path,
  };
}

function createCommand(
  { interpreter, path: file }: { interpreter: string; path: string },
  setup: Setup | undefined,
): readonly string[] {
  if (setup === undefined) return [interpreter, file];
  const shell = existsSync('/usr/bin/bash') ? '/usr/bin/bash' : '/bin/sh';
  return [shell, ...createSetupArguments({ names: [interpreter], flags: [] }, file)];
}

/** `command export` goes on after a variable that the shell does not let anyone set, such as UID in bash. */
function createVariablesScript(env: Job['env']): Buffer {
  const lines = Object.entries(env).map(([name, value]) => {
    if (!isVariableName(name) || value.includes('\0'))
      throw new Error('the name or value of a variable is invalid');
    return `command export ${name}=${quoteForShell(value)}\n`;
  });
  return Buffer.from(lines.join(''));
}

const ENVIRONMENT = {
  PATH: '/usr/local/bin:/usr/bin:/bin',
  HOME: '/work',
  LANG: 'C.UTF-8',
  TMPDIR: '/tmp',
};

/** Code is placed beside the files of the job, so that it can import them. A command needs no such file. */
function createSourceFile({ program, files }: Job, folder: string, runtime?: string) {
  if ('command' in program)
    return { interpreter: '/bin/sh', path: PROGRAM_FILE, content: Buffer.from(program.command) };
  const { names, extension } = INTERPRETERS[program.language];
  let name = `main.${extension}`;
  while (files.some((file) => path.posix.normalize(file.path) === name)) name = `_${name}`;
  const interpreter = runtime === undefined ? names[0] : RUNTIME_FILE;
  return { interpreter, path: path.posix.join(folder, name), content: Buffer.from(program.code) };
}

function toSandboxPath(folder: string, relative: string): string {
  const absolute = path.posix.join(folder, relative);
  if (!absolute.startsWith(`${folder}/`) || path.posix.isAbsolute(relative))
    throw new Error('a file of a job is outside of the working folder');
  return absolute;
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

/** Hides the product's paths that are inside visible folders, as in a container image. Others are not visible. */
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
