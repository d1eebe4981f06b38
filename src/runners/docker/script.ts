import { createHash, randomBytes } from 'node:crypto';
import { posix } from 'node:path';
import type { Job, JobFile, Program } from '../runner.ts';
import { createSetupArguments, SETUP_SHELLS, type Setup } from '../setup.ts';
import { getInterpreter, quoteForShell, type Interpreter } from '../shell.ts';

/** Text for a container, and the prefix of the markers that it prints (see `../marker-stream.ts`). */
export interface Script {
  text: Buffer;
  /** Name of the interpreter that the job needs in the image. */
  interpreter: string;
  markerPrefix: Buffer;
}

/**
 * Markers that a script prints: the program is about to start; it exited, or a signal ended it (an exit code
 * alone does not distinguish them); or why it did not start.
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
 * First process of every container. It reads the length of a script, and then the script, from standard
 * input. It is the same for all jobs, so that a container can be started before its job is known. The input
 * stays open after the script, because many proxies close both directions when one is closed.
 */
export const DOCKER_LAUNCH_COMMAND = ['/bin/sh', '-c', 'IFS= read -r size && eval "$(head -c "$size")"'];

/** In the container's memory; empty at its start. */
export const SCRATCH_FOLDER = '/tmp';
/** Working folder of jobs that name none. */
const JOB_FOLDER = `${SCRATCH_FOLDER}/job`;
/**
 * In some shells `printf` is an external program, and the arguments of programs are limited to 128 KB each.
 */
const CHUNK_BYTES = 16 * 1024;

/**
 * Writes a job as text for a POSIX shell (tested with dash, busybox and bash). All data is quoted or escaped.
 * The text stands in braces, so that nothing of it runs if it is cut off.
 *
 * The shell stays the first process and runs the program as its child, because the kernel shields a first
 * process from signals. When the program ends, the shell ends, and with it everything else in the container.
 * @param environment of the server. The job's own variables take precedence.
 * @param setup of the server. Then its markers are in the output of the program.
 */
export function createScript(
  job: Job,
  workdir: string | null,
  environment: Readonly<Record<string, string>>,
  setup?: Setup,
): Script {
  const nonce = randomBytes(16).toString('hex');
  const program = toProgram(job, workdir);
  const env = { ...environment, ...job.env, ...setup?.env };
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const lines = [
    'exec 3>&2 2>/dev/null',
    `record() { printf '\\000${nonce}:%s\\n' "$1" >&3; }`,
    // In a user's folder, no file is left behind, and no remaining process may continue there.
    workdir === null
      ? 'clean() { :; }'
      : 'clean() { kill -9 -1; for made; do rm -f -- "$made" || rmdir -- "$made"; done; }',
    'fail() { record "fail:$1"; shift; clean "$@"; exit 125; }',
    ...openShellMessages(),
    // The input ends when the sender is gone. Then the program must not continue.
    'exec 6<&0 </dev/null',
    '{ read -r line; kill -9 -1; } <&6 3>&- 4<&- &',
    ...openStdin(job.stdin),
    workdir === null
      ? `mkdir ${JOB_FOLDER} && cd ${JOB_FOLDER} || fail scratch`
      : `cd -- ${quoteForShell(workdir)} || fail workspace`,
    ...writeFiles(job.files, program.file),
    ...runProgram(program.interpreter, program.file.path, variables, setup),
  ];
  const body = Buffer.from(`{\n${lines.join('\n')}\n}\n`);
  return {
    text: Buffer.concat([Buffer.from(`${body.length}\n`), body]),
    interpreter: setup === undefined ? program.interpreter.names[0] : 'sh',
    markerPrefix: Buffer.from(`\0${nonce}:`),
  };
}

/** Writes a script that removes a job's files, for a job that was killed before it could do so. */
export function createRemovalScript(job: Job, workdir: string): Script {
  const paths = [...job.files, toProgram(job, workdir).file].map(({ path }) => path);
  const folders = [...new Set(paths.flatMap(parentFolders))].sort().reverse();
  const script = [
    `cd -- ${quoteForShell(workdir)} || exit 1`,
    ...paths.map((path) => `rm -f -- ${quoteForShell(`./${path}`)}`),
    ...folders.map((folder) => `rmdir -- ${quoteForShell(`./${folder}`)} 2>/dev/null`),
    'true',
  ].join('\n');
  const removal = { program: { command: script }, stdin: null, files: [], env: {}, workdir: null };
  return createScript({ ...removal, runId: job.runId }, null, {});
}

export function parseScriptMarker(text: string): ScriptMarker | undefined {
  return SCRIPT_MARKERS.find((marker) => marker === text);
}

/** An unlinked file receives the shell's own messages. They show whether a signal ended its child. */
function openShellMessages(): string[] {
  const notes = `${SCRATCH_FOLDER}/.notes`;
  return [`printf '' >${notes} && exec 4<${notes} 2>>${notes} && rm ${notes} || fail scratch`];
}

function openStdin(stdin: Uint8Array | null): string[] {
  if (stdin === null || stdin.length === 0) return ['exec 5</dev/null'];
  const path = `${SCRATCH_FOLDER}/.stdin`;
  return [...writeFile(path, stdin, 'fail scratch'), `exec 5<${path} && rm ${path}`];
}

/** Existing files are not overwritten (`set -C`), because these files are removed afterwards. */
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
      // (Not `:`, because it ends the shell when the redirection fails.)
      return [`printf '' >${word} && set -- ${word} "$@" || ${orElse}`, ...writeFile(word, content, orElse)];
    }),
    // The code is placed beside its files if possible, else in the scratch folder, so that a read-only folder
    // suffices.
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

/** Escapes for `printf '%b'`: everything but plain ASCII in octal. */
function escapeForPrintf(bytes: Buffer): string {
  return bytes
    .toString('latin1')
    .replace(/[^\t\n -[\]-~]/g, (byte) => `\\0${byte.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

function runProgram(
  interpreter: Interpreter,
  path: string,
  variables: readonly string[],
  setup: Setup | undefined,
): string[] {
  const searched = setup === undefined ? interpreter.names : SETUP_SHELLS;
  // The last argument is the path, which has a variable.
  const setupArguments = createSetupArguments(interpreter, '').slice(0, -1).map(quoteForShell);
  const flags = setup === undefined ? interpreter.flags : setupArguments;
  return [
    // The set-up may enter another folder.
    ...(setup === undefined ? [] : ['[ "$at" != . ] || at=$PWD']),
    `for tool in ${searched.join(' ')}; do command -v "$tool" >/dev/null && break; tool=; done`,
    '[ -n "$tool" ] || fail interpreter "$@"',
    // Skips messages that are not about the program.
    'while read -r notes <&4; do :; done',
    'record start',
    // In a subshell, so that the outer shell's messages do not go to the program's output.
    `( exec env ${variables.map(quoteForShell).join(' ')} "$tool" ${flags.join(' ')} "$at"/${quoteForShell(path)} <&5 2>&3 3>&- 4<&- 5<&- 6<&- )`,
    'code=$?',
    'IFS= read -r notes <&4; if [ -z "$notes" ] || [ "$code" -le 128 ]; then end=exited; else end=signal; fi',
    // By a trap, because some shells exit when they cannot start another process for the cleanup.
    `trap 'record "$end"; exit "$code"' EXIT`,
    'clean "$@"',
    'exit "$code"',
  ];
}

function toProgram(job: Job, workdir: string | null) {
  const interpreter = getInterpreter(job.program);
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
