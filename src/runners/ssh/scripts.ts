import { toShellCommand } from '../../lib/ssh/shell-command.ts';
import { quoteForShell } from '../shell.ts';
import {
  FOLDER_FUNCTIONS,
  FORGET_VARIABLES,
  SEARCH_FUNCTIONS,
  TEXT_FUNCTION,
  TOOL_FUNCTIONS,
} from './shell-functions.ts';

/**
 * Scripts that run on a host, for any POSIX shell. Their texts are constant: a job is sent over the channel's input, so
 * that no part of it is read as code. Of its parts a process list shows two to all accounts of the host: a short command,
 * which becomes an argument of `sh -c`, and for a moment the names of the folders that are created for its files.
 *
 * The account's shell may not run the command that it is given: its start files may start another shell, which would read
 * the job as commands. The boot script therefore reports first, and `session.ts` sends nothing of the job before.
 *
 * The texts of the supervisors come first in the input: dropbear closes the whole connection, with its other channels, on
 * a command of more than 9,000 bytes (MAX_CMD_LEN in its sysoptions.h).
 *
 * The channel's input is the job's lease: it ends at the end of the input, or 15 s after the last heartbeat (a dead
 * network path gives no end). The boot script starts the supervisor of `supervisor.ts`, which is the ancestor of all
 * processes of the run. Its child, the launcher, reads the job and replaces itself by the program. When the program or
 * the lease has ended, the supervisor kills everything, and the watcher script removes the files of the run and reports
 * on stderr.
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

/** The boot script puts these before the texts of the launcher and the watcher. */
const COMMON_FUNCTIONS = `${FORGET_VARIABLES}${TEXT_FUNCTION}${TOOL_FUNCTIONS}${FOLDER_FUNCTIONS}
frame() { printf "${FRAME}%s%s\\n" "$mark" "$1"; } # word`;

/** Heartbeats are sent every 5 s. */
const LEASE_S = 15;

/**
 * Arguments: the run's variable, and without a supervisor the program's process id. It kills what a search finds of the
 * run, and removes its files. It succeeds when nothing is left.
 *
 * With a supervisor it has no other task. Otherwise its input begins with the marker and its own proof, and the lease
 * follows; it reports whether it succeeded, and `L` if the lease ended by silence. Every process of the account can read
 * its memory and its input, so that report proves nothing.
 */
const WATCHER_SCRIPT = `${SEARCH_FUNCTIONS}
tag=$1 id=\${1#*=} top=$2
folder
cd /
exec 4>&2 5>&1 >/dev/null 2>&1
state=V
if [ -n "$top" ]; then
  IFS= read -r mark
  while beat=$(within ${LEASE_S} dd bs=1 count=1); code=$?; [ "$beat" = . ]; do :; done
  # By timeout, by SIGALRM, and by the SIGTERM of BusyBox.
  case $code in 124 | 142 | 143) silent=L ;; esac
fi
finish || state=U
clean || state=U
[ -z "$mark" ] || frame $state$silent >&4
[ $state = V ]
`;

/** Programs that the scripts start. Without `setsid` and `timeout`, Perl or Python stands in. */
export const REQUIRED_TOOLS = ['awk', 'cat', 'dd', 'grep', 'ls', 'mkdir', 'rm'] as const;
/** Systems without /proc, where only the process group of a run can be killed. */
const SYSTEMS_WITHOUT_PROC = 'Darwin | *BSD';

/**
 * Arguments: the run's id, and without a supervisor the watcher script. Its input is encoded by `run.ts`. It
 * starts the program only after the line "go", so that truncated input starts nothing.
 */
const LAUNCHER_SCRIPT = `
id=$1 watcher=$2
IFS= read -r mark || exit 1
folder
fail() { # reason
  clean && state=V || state=U
  frame E$state$1 >&2
  exit 1
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
# Copies so many bytes of the input. A dd that does not know fullblock (macOS) must read them one by one.
copy() { # bytes
  if [ -z "$full" ]; then within 60 dd bs=1 count=$1; return; fi
  [ $1 -lt 65536 ] || within 60 dd bs=65536 count=$(($1 / 65536)) iflag=fullblock || return 1
  [ $(($1 % 65536)) -eq 0 ] || within 60 dd bs=$(($1 % 65536)) count=1 iflag=fullblock
}
# Creates a file from so many bytes of the input, or from the text if bytes is -1. Fails if the file exists.
put() { # path bytes
  (
    umask 077
    set -C
    exec >"$1" || exit 1
    case $1 in ./*) note "$dir/$1" >>"$own/made" ;; esac
    if [ $2 -lt 0 ]; then printf "%s" "$text"; else copy $2; fi
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
# Whether a program can be started with the job's variables. Some shells find a path that is no program.
can() ( # variables program
  while [ $# -gt 1 ]; do export "$1"; shift; done
  case $1 in /*) [ -f "$1" ] && [ -x "$1" ] ;; *) has "$1" ;; esac
)
IFS= read -r dir && IFS=" " read -r env kind stdin program files names setup extension flags || fail input
lack=
for tool in ${REQUIRED_TOOLS.join(' ')}; do has $tool || lack=$lack,$tool; done
has perl || has python3 || for tool in setsid timeout; do has $tool || lack=$lack,$tool; done
[ -e /proc/self/stat ] || case $(uname) in ${SYSTEMS_WITHOUT_PROC}) ;; *) lack=$lack,/proc ;; esac
[ -z "$lack" ] || fail tools$lack
set --
while [ $env -gt 0 ]; do
  env=$((env - 1))
  text || fail input
  set -- "$@" "$text"
done
if [ -n "$dir" ]; then cd -- "$dir" 2>/dev/null || fail workdir; fi
if [ -z "$dir" ] || [ "$kind" != command ] || [ $stdin -ge 0 ] || [ $files -gt 0 ]; then
  mkdir -m 700 -- "$own" "$own/work" 2>/dev/null || fail folder
fi
if [ $stdin -ge 0 ] || [ $files -gt 0 ] || [ $program -ge 0 ]; then
  dd count=0 iflag=fullblock </dev/null >/dev/null 2>&1 && full=1
fi
if [ -z "$dir" ]; then dir=$own/work; cd -- "$dir" || fail folder; fi
source=/dev/null
if [ $stdin -ge 0 ]; then source=$own/stdin; put "$source" $stdin || fail folder; fi
while [ $files -gt 0 ]; do
  files=$((files - 1))
  text && IFS= read -r size || fail input
  parents "$text" && put "./$text" $size || fail file
done
if [ $program -lt 0 ]; then text || fail input; fi
file=./.ops-run-$id.$extension
name=
while [ $names -gt 0 ]; do
  names=$((names - 1))
  IFS= read -r line || fail input
  if [ -z "$name" ] && can "$@" "$line"; then name=$line; fi
done
[ -n "$name" ] || { [ $setup -eq 0 ] || kind=command; fail $kind; }
case $setup$kind in
  1*)
    code=$text
    text && eval "$text"
    text=$code ;;
  *command) set -- "$@" -- "$name" -c "$text" ;;
  *) set -- "$@" -- "$name" $flags "$file" ;;
esac
[ "$kind" = command ] || put "$file" $program || fail file
IFS= read -r line && [ "$line" = go ] || fail input
if [ -n "$watcher" ]; then
  exec 3<&0
  detach sh -c "$watcher" ops-watch "OPS_RUN_ID=$id" $$ <&3 3<&- &
  exec 3<&-
  started=N
  [ -e /proc/self/stat ] || started=G
else
  started=S
fi
exec <"$source"
frame $started
frame $started >&2
# From this line on the supervisor kills this script when the lease ends. Its report counts only after the frames above.
[ -n "$watcher" ] || { [ -d "$own" ] && echo d || echo; } >&4
exec 4>&-
export "OPS_RUN_ID=$id"
# The job's variables may have the names of this script's: those are not used from here on.
while [ "$1" != -- ]; do export "$1"; shift; done
shift
exec "$@"
`;

/**
 * Starts the supervisor in Python, or else the launcher without a supervisor. Arguments: the run's id, the launcher, the
 * watcher, the Python program. An interpreter that does not start is not used. The line of the input that follows is for a
 * supervisor.
 */
const FALLBACK_SCRIPT = `
exec 3<&- 4<&-
python3 -ISc 1 </dev/null >/dev/null 2>&1 && exec python3 -ISc "$4" "ops-supervise $1" "$2" "$3"
IFS= read -r line
exec sh -c "$2" ops-run "$1" "$3"
`;

/**
 * Its name is the run's marker, by which it reports that it runs. Lines before the marker are skipped: `session.ts` may
 * have sent one to find out who reads. It reads the texts of the supervisors and the run's id, which names the supervisor
 * in process lists, and starts the supervisor with the descriptors 3 and 4 closed. Perl is used if it may
 * start programs (PERL5OPT may forbid it); -C0 ignores PERL_UNICODE.
 */
const BOOT_SCRIPT = `
set -- ${quoteForShell(COMMON_FUNCTIONS)}
eval "$1"
mark=$0
frame R
fallback=${quoteForShell(FALLBACK_SCRIPT)}
launcher=$1${quoteForShell(LAUNCHER_SCRIPT)}
watcher=$1${quoteForShell(WATCHER_SCRIPT)}
exec 3<&- 4<&-
name=sh
perl -C0 -e "exec qw(true)" </dev/null >/dev/null 2>&1 && name=perl
while IFS= read -r line && [ "$line" != "$0" ]; do :; done
text && perl=$text && text && python=$text && IFS= read -r id || exit 1
[ $name = sh ] || exec perl -C0 -e "$perl" "ops-supervise $id" "$launcher" "$watcher" "$fallback" "$python"
exec sh -c "$fallback" ops-run "$id" "$launcher" "$watcher" "$python"
`;

/**
 * The part of the launcher for a server with a set-up (see `../setup.ts`). It is sent with the job, since the command has
 * no room for it. `code` is the job's command. The file is named by its path, since the set-up may enter another folder.
 */
export const SETUP_PART = `
text && IFS= read -r first && IFS= read -r second || fail input
case $kind in
  command) set -- "$@" -- "$name" -c "$text" ops-setup "$first" "$second" -c "$code" ;;
  *) set -- "$@" -- "$name" -c "$text" ops-setup "$first" "$second" "$flags" "$PWD/$file" ;;
esac
`;

/** Its name is the run's variable. */
const CLEANUP_SCRIPT = `${FORGET_VARIABLES}${SEARCH_FUNCTIONS}${FOLDER_FUNCTIONS}
tag=$0 id=\${0#*=}
supervisor="ops-supervise $id"
folder
state=V
finish || state=U
pids=$(processes supervisors)
kill -9 \${pids%.} 2>/dev/null
# A supervisor may have started its watcher meanwhile.
[ "$pids" = . ] || finish || state=U
clean || state=U
printf "${FRAME}%s" "$state"
`;

/** The command that starts the boot script. @param marker hexadecimal; see `session.ts`. */
export const createLaunchCommand = toShellCommand(BOOT_SCRIPT);

/** The end of the output of {@link createCleanupCommand} when the search found nothing more of the run. */
export const NOTHING_FOUND = '\x1eV';

const createScriptCommand = toShellCommand(CLEANUP_SCRIPT);

/** The command that kills what a search finds of a run, and removes its files. @param runId letters, digits, `-` and `_` */
export function createCleanupCommand(runId: string): string {
  return createScriptCommand(`OPS_RUN_ID=${runId}`);
}
