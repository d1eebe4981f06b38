import { LANGUAGES } from '../runner.ts';
import { INTERPRETERS, quoteForShell } from '../shell.ts';
import { PERL_SUPERVISOR, PYTHON_SUPERVISOR } from './supervisor.ts';

/**
 * Scripts that run on a host, for any POSIX shell. Their texts are constant: a job is sent over the channel's input,
 * so that no part of it is read as code or shown in a process list.
 *
 * The channel's input is the job's lease: it ends at the end of the input, or 15 s after the last heartbeat (a dead
 * network path gives no end). The boot script starts the supervisor of `supervisor.ts`, which holds all processes of
 * the run. Its child, the launcher, reads the job and replaces itself by the program. When the program or the lease has
 * ended, the supervisor kills everything, and the watcher script removes the files of the run and reports on stderr.
 *
 * A host without Perl or Python has no supervisor. There the launcher starts the watcher in a new session, and the
 * watcher reads the lease and kills the processes that it finds.
 *
 * In both cases the watcher searches for processes by what they inherit: OPS_RUN_ID in the environment, the program's
 * session and process group, the channel's pipes or sockets as output, the run's folder as working folder, a supervisor
 * as parent; and all children of those. This finds also what another service started with the environment of the run,
 * but it proves nothing: a process can drop all of these. Without /proc only the process group is killed.
 */

/** First character of every frame of the launcher and the watcher (RS, in octal); see `session.ts`. */
const FRAME = '\\036';

/** Heartbeats are sent every 5 s. */
const LEASE_S = 15;

/**
 * Shell functions. They read `id` and `own`, the run's folder. These may be empty: `top`, the program's pid; `out` and
 * `err`; `hold`, the name of the run's supervisors. `processes` lists the processes that are found, without supervisors:
 * while these run, no process escapes. `processes supervisors` lists these. Both leave out the script's own session.
 */
const CLEANUP_FUNCTIONS = `
processes() {
  { grep -l -s -F -e "OPS_RUN_ID=$id" /proc/[0-9]*/environ
    [ -z "$hold" ] || grep -l -s -F -e "$hold" /proc/[0-9]*/cmdline
    ls -ln /proc/[0-9]*/fd/1 /proc/[0-9]*/fd/2 /proc/[0-9]*/cwd
    cat /proc/[0-9]*/stat
  } 2>/dev/null | awk -v top="$top" -v own="$own" -v out="$out" -v err="$err" -v self="$$" -v what="$1" '
    /^\\/proc\\/[0-9]+\\/environ$/ { split($0, part, "/"); hit[part[3]] = 1; next }
    /^\\/proc\\/[0-9]+\\/cmdline$/ { split($0, part, "/"); hold[part[3]] = 1; next }
    match($0, /\\/proc\\/[0-9]+\\/(fd\\/[12]|cwd) -> /) {
      target = substr($0, RSTART + RLENGTH); split(substr($0, RSTART), part, "/")
      if (target == out || target == err || index(target, own "/") == 1) hit[part[3]] = 1
      next
    }
    /^[0-9]+ \\(.*\\) [A-Za-z] / {
      pid = $1; sub(/^.*\\) /, ""); split($0, field, " ")
      session[pid] = field[4]
      if (field[1] == "Z" || field[1] == "X") next
      parent[pid] = field[2]
      if (top != "" && (pid == top || field[3] == top || field[4] == top)) hit[pid] = 1
    }
    END {
      for (pid in session) if (session[pid] == session[self]) delete parent[pid]
      for (pid in hold) hit[pid] = 0
      do {
        more = 0
        for (pid in parent) if (hold[pid] == 0 && hit[pid] == 0 && (hit[parent[pid]] || hold[parent[pid]])) {
          hit[pid] = 1; more = 1
        }
      } while (more)
      for (pid in parent) if (what == "supervisors" ? hold[pid] : hit[pid]) print pid
    }'
}
finish() {
  [ -z "$top" ] || kill -9 -$top 2>/dev/null
  [ -r /proc/self/environ ] || return 1
  round=0
  while pids=$(processes) && [ -n "$pids" ]; do
    kill -9 $pids 2>/dev/null
    round=$((round + 1))
    [ $round -lt 60 ] || return 1
    [ $round -lt 4 ] || sleep 0.05 2>/dev/null || sleep 1
  done
}
clean() {
  if [ -d "$own" ] && [ ! -L "$own" ] && [ -O "$own" ]; then
    if [ -f "$own/made" ]; then
      set --
      path=
      while IFS= read -r line; do
        case $line in
          *//) path=$path\${line%//}$newline ;;
          *) set -- "$path$line" "$@"; path= ;;
        esac
      done <"$own/made"
      for path do rm -f -- "$path" 2>/dev/null || rmdir -- "$path" 2>/dev/null; done
    fi
    rm -rf -- "$own" 2>/dev/null || { chmod -R u+rwx -- "$own"; rm -rf -- "$own"; } 2>/dev/null
  fi
  [ ! -d "$own" ]
}
newline="
"
folder() { own=\${TMPDIR:-/tmp}/ops-run-$id; }
`;

/**
 * Arguments: the run's id, the program's process id or nothing, and what to report if the search finds nothing: `U` if
 * the supervisor could not kill all, else `V`. Its input begins with the marker. The lease follows, unless the supervisor
 * reads it.
 */
const WATCHER_SCRIPT = `${CLEANUP_FUNCTIONS}
id=$1 top=$2 state=$3 hold=
folder
cd /
exec 4>&2 5>&1 >/dev/null 2>&1
IFS= read -r mark
while beat=$(timeout ${LEASE_S} dd bs=1 count=1) && [ "$beat" = . ]; do :; done
out=$(readlink /proc/self/fd/5) err=$(readlink /proc/self/fd/4)
case $out in pipe:* | socket:*) ;; *) out= ;; esac
case $err in pipe:* | socket:*) ;; *) err= ;; esac
finish || state=U
clean || state=U
printf "${FRAME}%s%s\\n" "$mark" "$state" >&4
`;

const INTERPRETER_CASES = LANGUAGES.map((language) => {
  const { names, extension } = INTERPRETERS[language];
  return `  ${language}) set -- ${names[0]} ./.ops-run-$id.${extension} ;;`;
}).join('\n');

/**
 * Arguments: the run's id, and without a supervisor the watcher script. Its input is encoded by `run.ts`. It
 * starts the program only after the line "go", so that truncated input starts nothing.
 */
const LAUNCHER_SCRIPT = `${CLEANUP_FUNCTIONS}
id=$1 watcher=$2 top= out= err=
IFS= read -r mark || exit 1
folder
fail() { # reason
  clean && state=V || state=U
  printf "${FRAME}%sE%s%s\\n" "$mark" "$state" "$1" >&2
  exit 1
}
# Reads a text: the number of its lines, then the lines.
text() {
  text=
  IFS= read -r left || return 1
  while [ $left -gt 0 ]; do
    left=$((left - 1))
    IFS= read -r line || return 1
    text=$text$line
    [ $left -eq 0 ] || text=$text$newline
  done
}
# Records a path to remove. A newline within a path is written as two slashes and a newline; no path has two slashes.
note() { # path
  rest=$1
  while case $rest in *"$newline"*) true ;; *) false ;; esac; do
    printf "%s//\\n" "\${rest%%"$newline"*}"
    rest=\${rest#*"$newline"}
  done
  printf "%s\\n" "$rest"
}
# Creates a file from so many bytes of the input, or from the text if bytes is -1. Fails if the file exists.
put() { # path bytes
  (
    umask 077
    set -C
    exec >"$1" || exit 1
    case $1 in ./*) note "$dir/$1" >>"$own/made" ;; esac
    if [ $2 -lt 0 ]; then printf "%s" "$text"; exit; fi
    [ $2 -lt 65536 ] || timeout 60 dd bs=65536 count=$(($2 / 65536)) iflag=fullblock || exit 1
    [ $(($2 % 65536)) -eq 0 ] || timeout 60 dd bs=$(($2 % 65536)) count=1 iflag=fullblock
  ) 2>/dev/null
}
# Creates the parent folders of a file.
parents() { # path
  below=$1 at=.
  while case $below in */*) true ;; *) false ;; esac; do
    at=$at/\${below%%/*} below=\${below#*/}
    [ -d "$at" ] && continue
    mkdir -m 700 -- "$at" 2>/dev/null && note "$dir/$at" >>"$own/made" || return 1
  done
}
IFS= read -r dir && IFS=" " read -r kind stdin program files env || fail input
command -v setsid >/dev/null 2>&1 && command -v timeout >/dev/null 2>&1 || fail tools
if [ -n "$dir" ]; then cd -- "$dir" 2>/dev/null || fail workdir; fi
if [ -z "$dir" ] || [ "$kind" != command ] || [ $stdin -ge 0 ] || [ $files -gt 0 ]; then
  mkdir -m 700 -- "$own" "$own/work" 2>/dev/null || fail folder
fi
if [ -z "$dir" ]; then dir=$own/work; cd -- "$dir" || fail folder; fi
source=/dev/null
if [ $stdin -ge 0 ]; then source=$own/stdin; put "$source" $stdin || fail folder; fi
while [ $files -gt 0 ]; do
  files=$((files - 1))
  text && IFS= read -r size || fail input
  parents "$text" && put "./$text" $size || fail file
done
case $kind in
${INTERPRETER_CASES}
  script) set -- sh ./.ops-run-$id.sh ;;
  command) set -- sh -c ;;
  *) fail input ;;
esac
if [ $program -lt 0 ]; then text || fail input; fi
if [ "$kind" = command ]; then set -- "$@" "$text"; else put "$2" $program || fail file; fi
set -- -- "$@"
while [ $env -gt 0 ]; do
  env=$((env - 1))
  text || fail input
  set -- "$text" "$@"
done
IFS= read -r line && [ "$line" = go ] || fail input
case $kind in
  ${LANGUAGES.join(' | ')})
    (
      while [ "$1" != -- ]; do export "$1"; shift; done
      command -v "$2" >/dev/null 2>&1
    ) || fail $kind ;;
esac
if [ -n "$watcher" ]; then
  exec 3<&0
  setsid sh -c "$watcher" ops-watch "$id" $$ V <&3 3<&- &
  exec 3<&-
  started=S
else
  echo >&4
  exec 4>&-
  started=H
fi
exec <"$source"
printf "${FRAME}%s%s\\n" "$mark" $started
printf "${FRAME}%s%s\\n" "$mark" $started >&2
export "OPS_RUN_ID=$id"
# The job's variables may have the names of this script's: those are not used from here on.
while [ "$1" != -- ]; do export "$1"; shift; done
shift
exec "$@"
`;

/**
 * Arguments: the texts of the supervisors, the launcher and the watcher. It reads the run's id, which names the
 * supervisor in process lists, and starts the supervisor with the descriptors 3 and 4 closed. An interpreter that does
 * not start is not used.
 */
const BOOT_SCRIPT = `
IFS= read -r id || exit 1
exec 3<&- 4<&-
starts() { "$@" </dev/null >/dev/null 2>&1; }
starts perl -e 1 && exec perl -e "$1" "ops-hold $id" "$3" "$4" "$2"
starts python3 -ISc 1 && exec python3 -ISc "$2" "ops-hold $id" "$3" "$4"
exec sh -c "$3" ops-run "$id" "$4"
`;

/** Argument: the run's id. */
const CLEANUP_SCRIPT = `${CLEANUP_FUNCTIONS}
id=$1 top= out= err= hold="ops-hold $1"
folder
state=V
finish || state=U
pids=$(processes supervisors)
[ -z "$pids" ] || kill -9 $pids 2>/dev/null
clean || state=U
printf "${FRAME}%s" "$state"
`;

const BOOT_ARGUMENTS = [PERL_SUPERVISOR, PYTHON_SUPERVISOR, LAUNCHER_SCRIPT, WATCHER_SCRIPT];

/** A command for any account shell: it only starts `sh` with constant texts in single quotes. */
export const LAUNCH_COMMAND = `exec sh -c ${[BOOT_SCRIPT, 'ops-run', ...BOOT_ARGUMENTS].map(quoteForShell).join(' ')}`;

/** The end of the output of {@link createCleanupCommand} when the search found nothing more of the run. */
export const NOTHING_FOUND = '\x1eV';

/** The command that kills what a search finds of a run, and removes its files. @param runId letters, digits, `-` and `_` */
export function createCleanupCommand(runId: string): string {
  return `exec sh -c ${quoteForShell(CLEANUP_SCRIPT)} ops-reap ${runId}`;
}
