import type { Job, Language } from '../runner.ts';

/** Where a run's input lies in its pod; a volume that nothing else uses. */
export const INPUT_FOLDER = '/run/ops-center';

/**
 * The first process of a pod: it waits, and ends at once when it is asked to, and with it every other process there
 * is. As the parent of orphans it takes their exit codes. Its own is a failure: kubelet forgets why it evicted a pod
 * whose containers have ended well.
 */
export const POD_COMMAND = [
  'sh',
  '-c',
  "trap 'exit 143' TERM; while :; do sleep 3600 & wait $!; done",
] as const;

/** Why a program was not started, as {@link LAUNCHER} says it. */
export const START_FAILURES = {
  'refused files':
    'The files could not be written: the working folder is read-only for the run, or its disk is full.',
  'refused workdir': 'The working folder does not exist in the image, or may not be entered.',
  'refused python': 'The image has no python3: choose one that has.',
  'refused javascript': 'The image has no node: choose one that has.',
  'refused bash': 'The image has no bash: choose one that has.',
} as const;
export const STARTED_LINE = 'started';

/**
 * Runs what comes on its input: a plan of `$1` bytes for the shell, in which all data is quoted, and behind it the
 * contents of the files. This text is the same for every run.
 *
 * What it says itself is the first line of standard error, before the program has it. That a signal ended the
 * program, a shell can tell only in words, and it tells them on its own standard error, the file `note`; a subshell
 * that becomes the program keeps that apart from the program's. At last everything that the program has left behind
 * is killed: it would hold the output open.
 */
const LAUNCHER = `
exec 3>&2 2>/dev/null
base=${INPUT_FOLDER}
refuse() { printf 'refused %s\\n' "$1" >&3; exit 125; }
put() {
  case $1 in */*) mkdir -p -- "./\${1%/*}" || refuse files ;; esac
  tail -c "+$2" "$base/in" | head -c "$3" >"./$1" || refuse files
}
find() { language=$1; shift; for name; do program=$(command -v "$name") && return; done; refuse "$language"; }
cat >"$base/in" && head -c "$1" "$base/in" >"$base/plan" || refuse files
. "$base/plan"
printf '${STARTED_LINE}\\n' >&3
exec 2>"$base/note"
(exec "$@" <"$base/stdin" 2>&3 3>&-)
code=$?
kill -9 -1
exit "$code"
`;

/** Tells what a shell noted and whether the kernel killed for want of memory (cgroup v2 and v1). */
export const INSPECT_COMMAND = [
  'sh',
  '-c',
  `cat ${INPUT_FOLDER}/note; echo; echo --; cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null`,
];

const INTERPRETERS: Readonly<Record<Language, { names: string; flags: string; extension: string }>> = {
  // Without buffers, so that output is live, and without leaving compiled files behind.
  python: { names: 'python3 python', flags: '-u -B', extension: 'py' },
  javascript: { names: 'node nodejs', flags: '', extension: 'js' },
  bash: { names: 'bash', flags: '', extension: 'sh' },
};

export interface JobLaunch {
  command: string[];
  /** What the command reads, to its end. */
  input: Buffer;
}

/** What starts a job in its pod. @param workdir absolute; null is a new folder. */
export function createJobLaunch(job: Job, workdir: string | null): JobLaunch {
  const blobs: Buffer[] = [];
  let offset = 1; // `tail` counts from 1, here from behind the plan.
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
    ...programLines(job, put),
    `set -- env HOME=/tmp ${quoteEnvironment(job)} "$@"`,
  ];
  const plan = Buffer.from(`${lines.join('\n')}\n`);
  return {
    command: ['sh', '-c', LAUNCHER, 'ops-center', String(plan.length)],
    input: Buffer.concat([plan, ...blobs]),
  };
}

/** By `env`, not `export`: no name can then meet one of the shell's own. */
function quoteEnvironment(job: Job): string {
  return Object.entries(job.env)
    .map(([name, value]) => quoteForShell(`${name}=${value}`))
    .join(' ');
}

function programLines({ program }: Job, put: (path: string, content: Uint8Array) => string): string[] {
  if ('command' in program) return [`set -- sh -c ${quoteForShell(program.command)}`];
  const { names, flags, extension: ending } = INTERPRETERS[program.language];
  const file = `.ops-center.${ending}`;
  return [
    `find ${program.language} ${names}`,
    // Beside the files, where a program looks for its parts; elsewhere only where that folder cannot be written.
    `folder=$PWD; [ -w . ] || cd ${INPUT_FOLDER}`,
    put(file, Buffer.from(program.code)),
    `set -- "$program" ${flags} "$PWD/${file}"; cd -- "$folder"`,
  ];
}

/** One word of a shell: single quotes end at nothing but a single quote. */
function quoteForShell(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
