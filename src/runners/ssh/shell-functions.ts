/**
 * First lines of a script: they unset all variables of the scripts. A shell exports a variable that it inherited, and
 * with an inherited SHELLOPTS=allexport (bash) every variable, also after an assignment. An account that exports these
 * names would pass the marker and the job to the program.
 */
export const FORGET_VARIABLES = `set +a
unset at beat below code dir env extension fallback file files first flags full id kind lack launcher left line mark
unset name names newline own path perl pids program python rest round second setup silent size source started state stdin
unset supervisor tag text tool top watcher
newline="
"`;

/** A shell function that reads a text from the input: the number of its lines, then the lines. */
export const TEXT_FUNCTION = `
text() {
  text=
  IFS= read -r left || return 1
  while [ $left -gt 0 ]; do
    left=$((left - 1))
    IFS= read -r line || return 1
    text=$text$line
    [ $left -eq 0 ] || text=$text$newline
  done
}`;

/**
 * Shell functions: `has` tests for a program; `within` runs one for so many seconds at most, and `detach` replaces the
 * shell by one in a new session. Perl or Python stands in for `timeout` and `setsid`, which macOS lacks. BusyBox before
 * 1.30 has `timeout -t`, and reports 127 for the other form.
 */
export const TOOL_FUNCTIONS = `
has() { command -v "$1" >/dev/null 2>&1; }
substitute() { # program in Perl, program in Python, arguments
  if has perl; then perl=$1; shift 2; exec perl -e "$perl" -- "$@"; fi
  python=$2
  shift 2
  exec python3 -c "$python" "$@"
}
within() ( # seconds program arguments
  has timeout || substitute "alarm shift; exec @ARGV" "import os, signal, sys
signal.alarm(int(sys.argv[1])); os.execvp(sys.argv[2], sys.argv[2:])" "$@"
  timeout "$@"
  code=$?
  [ $code -ne 127 ] || exec timeout -t "$@"
  exit $code
)
detach() { # program arguments
  has setsid || substitute "use POSIX; POSIX::setsid(); exec @ARGV" "import os, sys
os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])" "$@"
  exec setsid "$@"
}`;

/**
 * Shell functions that search for processes and kill them. They read `tag`, the variable of the run with its value, which
 * must be an argument of the script, and `own`, the run's folder. These may be empty: `top`, the program's pid, and
 * `supervisor`, the name of the run's supervisors. The channel of the run is what descriptors 4 and 5 are.
 *
 * `processes` lists the processes that are found, without supervisors: while these run, no process escapes. `processes
 * supervisors` lists these. Both leave out the script, its descendants, and without `top` its parent, which is the
 * supervisor or the SSH server. Its session is no criterion: dropbear starts all commands of a connection in one session.
 *
 * It uses `grep` without -F, with which BusyBox does not search behind a NUL character.
 *
 * The list ends with a point, unless a part of the search has failed: a program was missing, was killed, could not be
 * started (the account's limit of processes), or did not find the script itself.
 *
 * `finish` searches before it kills, since the children of a killed process have another parent; it stops all before it
 * kills the first, so that none reacts to the end of another. It fails unless a last search found nothing. Where no search is possible, it kills the program's process group.
 */
export const SEARCH_FUNCTIONS = `
processes() {
  {
    grep -l -s -e "$tag" /proc/[0-9]*/environ /proc/$$/cmdline
    [ $? -lt 126 ] || exit
    [ -z "$supervisor" ] || grep -l -s -e "$supervisor" /proc/[0-9]*/cmdline
    ls -ln /proc/[0-9]*/fd/1 /proc/[0-9]*/fd/2 /proc/[0-9]*/cwd /proc/$$/fd/4 /proc/$$/fd/5
    [ $? -lt 126 ] || exit
    cat /proc/[0-9]*/stat
    [ $? -ge 126 ] || echo end
  } 2>/dev/null | awk -v top="$top" -v own="$own" -v self="$$" -v what="$1" '
    function isOwn(pid) { while (pid != self && pid in parent && parent[pid] != pid) pid = parent[pid]; return pid == self }
    $0 == "/proc/" self "/cmdline" { tagged = 1; next }
    /^.proc.[0-9]+.environ$/ { split($0, part, "/"); hit[part[3]] = 1; next }
    /^.proc.[0-9]+.cmdline$/ { split($0, part, "/"); supervisor[part[3]] = 1; next }
    match($0, /.proc.[0-9]+.(fd.[1245]|cwd) -> /) {
      target = substr($0, RSTART + RLENGTH); split(substr($0, RSTART, RLENGTH - 4), part, "/")
      if (part[3] == self && part[4] == "cwd") listed = 1
      if (part[3] == self && part[5] > 2) { if (target ~ /^(pipe|socket):/) channel[target] = 1 }
      else if (part[4] == "fd") users[target] = users[target] " " part[3]
      else if (index(target, own "/") == 1) hit[part[3]] = 1
      next
    }
    /^[0-9]+ [(].*[)] [A-Za-z] / {
      pid = $1; sub(/^.*[)] /, ""); split($0, field, " ")
      if (field[1] == "Z" || field[1] == "X") next
      parent[pid] = field[2]
      if (top != "" && (pid == top || field[3] == top || field[4] == top)) hit[pid] = 1
      next
    }
    $0 == "end" { ended = 1 }
    END {
      complete = tagged && listed && ended && self in parent
      for (target in channel) { count = split(users[target], list, " "); for (i = 1; i <= count; i++) hit[list[i]] = 1 }
      for (pid in parent) if (isOwn(pid)) script[pid] = 1
      if (top == "") script[parent[self]] = 1
      for (pid in script) delete parent[pid]
      for (pid in supervisor) hit[pid] = 0
      do {
        more = 0
        for (pid in parent)
          if (supervisor[pid] == 0 && hit[pid] == 0 && (hit[parent[pid]] || supervisor[parent[pid]])) {
            hit[pid] = 1; more = 1
          }
      } while (more)
      for (pid in parent) if (what == "supervisors" ? supervisor[pid] : hit[pid]) print pid
      if (complete) print "."
    }'
}
group() { [ -z "$top" ] || kill -9 -$top 2>/dev/null; }
finish() {
  round=0
  # Some shells exit when they cannot start a process.
  trap group EXIT
  while [ $round -lt 60 ]; do
    pids=$(processes)
    case $pids in
      .) break ;;
      *.)
        pids=\${pids%.}
        kill -STOP $pids 2>/dev/null
        kill -9 $pids 2>/dev/null ;;
      *)
        group
        [ -e /proc/self/stat ] || break
        round=$((round + 20)) ;;
    esac
    round=$((round + 1))
    [ $round -lt 4 ] || sleep 0.05 2>/dev/null || sleep 1
  done
  trap - EXIT
  [ $round -lt 60 ] && [ -e /proc/self/stat ]
}`;

/** Shell functions: `folder` sets `own`, the run's folder, from `id`; `clean` removes it and the files that it lists. */
export const FOLDER_FUNCTIONS = `
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
      for path do
        rm -f -- "$path" 2>/dev/null || rmdir -- "$path" 2>/dev/null
        # The program may have put files of its own into a folder.
        [ -d "$path" ] || [ ! -e "$path" ] && [ ! -L "$path" ] || return 1
      done
    fi
    rm -rf -- "$own" 2>/dev/null || { chmod -R u+rwx -- "$own"; rm -rf -- "$own"; } 2>/dev/null
  fi
  [ ! -d "$own" ]
}
folder() { own=\${TMPDIR:-/tmp}/ops-run-$id; }
`;
