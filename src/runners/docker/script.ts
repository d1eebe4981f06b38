import { createHash, randomBytes } from 'node:crypto';
import { posix } from 'node:path';
import type { Job, JobFile, Program } from '../runner.ts';

/** What a container is told to do, and the mark of what it says about it (see `records.ts`). */
export interface Script {
  text: Buffer;
  /** The program that the job needs in the image. */
  interpreter: string;
  markerPrefix: Buffer;
}

/**
 * What a script records: that the program is about to start; whether it exited or a signal ended it (an exit code
 * alone does not tell); or why it was not started.
 */
const SCRIPT_MARKERS = [
  'start',
  'exited',
  'signal',
  'fail:scratch',
  'fail:workspace',
  'fail:files',
  'fail:interpreter',
] as const;
export type ScriptMarker = (typeof SCRIPT_MARKERS)[number];

/**
 * The first process of every container: it waits on its standard input for a script, and the script's length before
 * it. It is the same for all, so that a container can wait for a job that nobody knows yet. The input is not closed
 * behind the script: much that stands between us and an engine closes both directions when one is.
 */
export const LAUNCHER = ['/bin/sh', '-c', 'IFS= read -r size && eval "$(head -c "$size")"'];

/** In the container's memory, empty at its start. */
export const SCRATCH_FOLDER = '/tmp';
/** Where jobs run that name no folder. */
const JOB_FOLDER = `${SCRATCH_FOLDER}/job`;
/** In some shells `printf` is a program, and the arguments of programs are limited to 128 KB each. */
const CHUNK_BYTES = 16 * 1024;

interface Interpreter {
  names: readonly string[];
  flags: readonly string[];
  extension: string;
}

const INTERPRETERS = {
  // Unbuffered, so that output is live, and without leaving compiled files behind.
  python: { names: ['python3', 'python'], flags: ['-u', '-B'], extension: 'py' },
  javascript: { names: ['node', 'nodejs'], flags: [], extension: 'js' },
  bash: { names: ['bash'], flags: [], extension: 'sh' },
  command: { names: ['sh'], flags: [], extension: 'sh' },
} as const satisfies Record<string, Interpreter>;

/**
 * Writes a job as text for a POSIX shell (dash, busybox and bash were tried). All data is quoted or escaped. The
 * text stands in braces: if it is cut off on its way, nothing of it is run.
 *
 * The shell stays the first process and runs the program as its child, since the kernel shields a first process
 * from signals. When the program ends, so does the shell, and with it whatever else is in the container.
 * @param environment of the server; the job's own goes before it.
 */
export function writeScript(
  job: Job,
  workdir: string | null,
  environment: Readonly<Record<string, string>>,
): Script {
  const nonce = randomBytes(16).toString('hex');
  const program = toProgram(job, workdir);
  const variables = Object.entries({ ...environment, ...job.env }).map(([name, value]) => `${name}=${value}`);
  const lines = [
    'exec 3>&2 2>/dev/null',
    `record() { printf '\\000${nonce}:%s\\n' "$1" >&3; }`,
    // In a folder of the user's, nothing is left behind, and nothing that still runs may go on there.
    workdir === null
      ? 'clean() { :; }'
      : 'clean() { kill -9 -1; for made; do rm -f -- "$made" || rmdir -- "$made"; done; }',
    'fail() { record "fail:$1"; shift; clean "$@"; exit 125; }',
    ...openShellMessages(),
    // Whoever sent this is gone when the input ends: then the program is not left to itself.
    'exec 6<&0 </dev/null',
    '{ read -r line; kill -9 -1; } <&6 3>&- 4<&- &',
    ...openStdin(job.stdin),
    workdir === null
      ? `mkdir ${JOB_FOLDER} && cd ${JOB_FOLDER} || fail scratch`
      : `cd -- ${quoteForShell(workdir)} || fail workspace`,
    ...writeFiles(job.files, program.file),
    ...runProgram(program.interpreter, program.file.path, variables),
  ];
  const body = Buffer.from(`{\n${lines.join('\n')}\n}\n`);
  return {
    text: Buffer.concat([Buffer.from(`${body.length}\n`), body]),
    interpreter: program.interpreter.names[0],
    markerPrefix: Buffer.from(`\0${nonce}:`),
  };
}

/** Writes what removes a job's files from its folder, for when the job was killed and could not do so itself. */
export function writeRemovalScript(job: Job, workdir: string): Script {
  const paths = [...job.files, toProgram(job, workdir).file].map(({ path }) => path);
  const folders = [...new Set(paths.flatMap(parentFolders))].sort().reverse();
  const script = [
    `cd -- ${quoteForShell(workdir)} || exit 1`,
    ...paths.map((path) => `rm -f -- ${quoteForShell(`./${path}`)}`),
    ...folders.map((folder) => `rmdir -- ${quoteForShell(`./${folder}`)} 2>/dev/null`),
    'true',
  ].join('\n');
  const removal = { program: { command: script }, stdin: null, files: [], env: {}, workdir: null };
  return writeScript({ ...removal, runId: job.runId }, null, {});
}

export function isScriptMarker(text: string): text is ScriptMarker {
  return (SCRIPT_MARKERS as readonly string[]).includes(text);
}

/** One word of a shell: single quotes end at nothing but a single quote. */
export function quoteForShell(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A file without a name takes the shell's own words: by them it tells that a signal ended its child. */
function openShellMessages(): string[] {
  const notes = `${SCRATCH_FOLDER}/.notes`;
  return [`printf '' >${notes} && exec 4<${notes} 2>>${notes} && rm ${notes} || fail scratch`];
}

function openStdin(stdin: Uint8Array | null): string[] {
  if (stdin === null || stdin.length === 0) return ['exec 5</dev/null'];
  const path = `${SCRATCH_FOLDER}/.stdin`;
  return [...writeFile(path, stdin, 'fail scratch'), `exec 5<${path} && rm ${path}`];
}

/** What is there already is not written over, since it is removed afterwards: `set -C`. */
function writeFiles(files: Job['files'], program: JobFile): string[] {
  const folders = [...new Set(files.flatMap(({ path }) => parentFolders(path)))];
  const name = quoteForShell(program.path);
  const orElse = 'fail files "$@"';
  return [
    'set -C',
    'set --',
    ...folders.map((folder) => {
      const path = quoteForShell(`./${folder}`);
      return `[ -d ${path} ] || { mkdir -- ${path} && set -- ${path} "$@"; } || fail files "$@"`;
    }),
    ...files.flatMap(({ path, content }) => {
      const word = quoteForShell(`./${path}`);
      // (Not with `:`, at which a shell ends when it cannot write.)
      return [`printf '' >${word} && set -- ${word} "$@" || ${orElse}`, ...writeFile(word, content, orElse)];
    }),
    // Code beside its files where that can be; else a folder that may only be read will do.
    `at=.; printf '' >./${name} || { at=${SCRATCH_FOLDER}; printf '' >"$at"/${name}; } || ${orElse}`,
    `set -- "$at"/${name} "$@"`,
    ...writeFile(`"$at"/${name}`, program.content, orElse),
    'set +C',
  ];
}

function writeFile(word: string, content: Uint8Array, orElse: string): string[] {
  const lines: string[] = [];
  for (let start = 0; start < content.length; start += CHUNK_BYTES) {
    const chunk = Buffer.from(content.subarray(start, start + CHUNK_BYTES));
    lines.push(`printf '%b' ${quoteForShell(escapeForPrintf(chunk))} >>${word} || ${orElse}`);
  }
  return lines;
}

/** As `printf '%b'` reads it: all but plain ASCII in octal. */
function escapeForPrintf(bytes: Buffer): string {
  return bytes
    .toString('latin1')
    .replace(/[^\t\n -[\]-~]/g, (byte) => `\\0${byte.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

function runProgram(interpreter: Interpreter, path: string, variables: readonly string[]): string[] {
  const { names, flags } = interpreter;
  return [
    `for tool in ${names.join(' ')}; do command -v "$tool" >/dev/null && break; tool=; done`,
    '[ -n "$tool" ] || fail interpreter "$@"',
    // What it said so far is not about the program.
    'while read -r notes <&4; do :; done',
    'record start',
    // In a shell of its own, or the outer one's words would go where the program's go.
    `( exec env ${variables.map(quoteForShell).join(' ')} "$tool" ${flags.join(' ')} "$at"/${quoteForShell(path)} <&5 2>&3 3>&- 4<&- 5<&- 6<&- )`,
    'code=$?',
    'IFS= read -r notes <&4; if [ -z "$notes" ] || [ "$code" -le 128 ]; then end=exited; else end=signal; fi',
    // By a trap, since some shells give up when they cannot start another process for the cleaning.
    `trap 'record "$end"; exit "$code"' EXIT`,
    'clean "$@"',
    'exit "$code"',
  ];
}

function toProgram(job: Job, workdir: string | null) {
  const interpreter = INTERPRETERS['command' in job.program ? 'command' : job.program.language];
  const defaultName = `main.${interpreter.extension}`;
  const isTaken = workdir !== null || job.files.some(({ path }) => path === defaultName);
  const id = createHash('sha256').update(job.runId).digest('hex').slice(0, 16);
  const path = isTaken ? `.run-${id}.${interpreter.extension}` : defaultName;
  return { interpreter, file: { path, content: Buffer.from(toSource(job.program)) } };
}

function toSource(program: Program): string {
  return 'command' in program ? program.command : program.code;
}

/** `a/b/c` -> `a`, `a/b`. */
function parentFolders(path: string): string[] {
  const folder = posix.dirname(path);
  return folder === '.' ? [] : [...parentFolders(folder), folder];
}
