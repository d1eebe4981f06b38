import { randomBytes } from 'node:crypto';
import type { Job } from '../runner.ts';
import { createSetupArguments, SETUP_SHELLS, type Setup } from '../setup.ts';
import { getInterpreter, INTERPRETERS, missingInImageMessage, quoteForShell } from '../shell.ts';

/** Folder of a run's input in its pod, on a volume for this purpose only. */
export const INPUT_FOLDER = '/run/ops-center';

/**
 * First process of a pod. It waits, and ends at once on SIGTERM, which ends all other processes. As the
 * parent of orphans it reaps them. Its exit code is a failure, because kubelet does not report why it evicted
 * a pod if its containers exit with 0.
 */
export const POD_COMMAND = [
  'sh',
  '-c',
  "trap 'exit 143' TERM; while :; do sleep 3600 & wait $!; done",
] as const;

/** Why a program did not start, by the marker that {@link LAUNCHER} prints, in a container of an image. */
const START_FAILURES = {
  files: () =>
    'The files could not be written: the working folder is read-only for the run, or its disk is full.',
  workdir: () => 'The working folder does not exist in the image, or cannot be entered.',
  python: (image: string) => missingInImageMessage(image, INTERPRETERS.python.names[0]),
  javascript: (image: string) => missingInImageMessage(image, INTERPRETERS.javascript.names[0]),
  bash: (image: string) => missingInImageMessage(image, INTERPRETERS.bash.names[0]),
} as const;
type StartFailure = keyof typeof START_FAILURES;

/** Message for users. */
export function explainStartFailure(marker: StartFailure, image: string): string {
  return START_FAILURES[marker](image);
}

/** A marker of the launcher on standard error (see `../marker-stream.ts`). */
export type LaunchMarker = 'started' | StartFailure;

/**
 * Runs a job from its standard input: a plan of `$1` bytes of shell text, in which all data is quoted, and
 * then the contents of the files. `$2` begins its markers. This script is the same for every run.
 *
 * A shell reports only as text on its standard error, here the file `note`, that a signal ended a program. A
 * subshell that becomes the program keeps that text separate from the program's. At the end all remaining
 * processes are killed, because they would hold the output open.
 */
const LAUNCHER = `
exec 3>&2 2>/dev/null
base=${INPUT_FOLDER} nonce=$2
mark() { printf '\\036%s%s\\n' "$nonce" "$1" >&3; }
refuse() { mark "$1"; exit 125; }
put() {
  case $1 in */*) mkdir -p -- "./\${1%/*}" || refuse files ;; esac
  tail -c "+$2" "$base/in" | head -c "$3" >"./$1" || refuse files
}
find() { language=$1; shift; for name; do program=$(command -v "$name") && return; done; refuse "$language"; }
cat >"$base/in" && head -c "$1" "$base/in" >"$base/plan" || refuse files
. "$base/plan"
mark started
exec 2>"$base/note"
(exec "$@" <"$base/stdin" 2>&3 3>&-)
code=$?
kill -9 -1
exit "$code"
`;

/** Prints the shell's note and the kernel's out-of-memory counters (cgroup v2 and v1). */
export const INSPECT_COMMAND = [
  'sh',
  '-c',
  `cat ${INPUT_FOLDER}/note; echo; echo --; cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null`,
];

export interface JobLaunch {
  command: string[];
  /** Complete standard input of the command. */
  input: Buffer;
  markerPrefix: Buffer;
}

/**
 * Creates the command that starts a job in its pod.
 * @param workdir absolute; null is a new folder.
 * @param setup of the server. Then its markers are in the output of the program.
 */
export function createJobLaunch(job: Job, workdir: string | null, setup?: Setup): JobLaunch {
  const blobs: Buffer[] = [];
  let offset = 1; // `tail` counts from 1. Offsets start after the plan.
  const put = (path: string, content: Uint8Array) => {
    const line = `put ${quoteForShell(path)} "$((size + ${offset}))" ${content.length}`;
    blobs.push(Buffer.from(content));
    offset += content.length;
    return line;
  };
  const lines = [
    `size=$1; cd ${INPUT_FOLDER}`,
    put('stdin', job.stdin ?? Buffer.alloc(0)),
    workdir === null
      ? 'mkdir job && cd job || refuse files'
      : `cd -- ${quoteForShell(workdir)} || refuse workdir`,
    ...job.files.map(({ path, content }) => put(path, content)),
    ...programLines(job, put, setup),
    `set -- env HOME=/tmp ${quoteEnvironment({ ...job.env, ...setup?.env })} "$@"`,
  ];
  const plan = Buffer.from(`${lines.join('\n')}\n`);
  const nonce = randomBytes(16).toString('hex');
  return {
    command: ['sh', '-c', LAUNCHER, 'ops-center', String(plan.length), nonce],
    input: Buffer.concat([plan, ...blobs]),
    markerPrefix: Buffer.from(`\x1e${nonce}`),
  };
}

export function parseLaunchMarker(text: string): LaunchMarker | undefined {
  return text === 'started' || Object.hasOwn(START_FAILURES, text) ? (text as LaunchMarker) : undefined;
}

/** With `env` instead of `export`, so that no name collides with a variable of the shell. */
function quoteEnvironment(env: Job['env']): string {
  return Object.entries(env)
    .map(([name, value]) => quoteForShell(`${name}=${value}`))
    .join(' ');
}

function programLines(
  { program }: Job,
  put: (path: string, content: Uint8Array) => string,
  setup: Setup | undefined,
): string[] {
  const interpreter = getInterpreter(program);
  // A pod has a shell: this script runs in it.
  const findShell = `program=$(${SETUP_SHELLS.map((name) => `command -v ${name}`).join(' || ')})`;
  if ('command' in program) {
    if (setup === undefined) return [`set -- sh -c ${quoteForShell(program.command)}`];
    const words = createSetupArguments({ ...interpreter, flags: ['-c'] }, program.command);
    return [findShell, `set -- "$program" ${words.map(quoteForShell).join(' ')}`];
  }
  const { names, flags, extension } = interpreter;
  const file = `.ops-center.${extension}`;
  // The last argument is the path, which has a variable.
  const setupWords = createSetupArguments(interpreter, '').slice(0, -1).map(quoteForShell);
  return [
    setup === undefined ? `find ${program.language} ${names.join(' ')}` : findShell,
    // Beside the files, where a program looks for its modules. In the input folder only if the working folder
    // is not writable.
    `folder=$PWD; [ -w . ] || cd ${INPUT_FOLDER}`,
    put(file, Buffer.from(program.code)),
    `set -- "$program" ${(setup === undefined ? flags : setupWords).join(' ')} "$PWD/${file}"; cd -- "$folder"`,
  ];
}
