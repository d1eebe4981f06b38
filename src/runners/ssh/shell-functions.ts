/**
 * First lines of a script: they unset all variables of the scripts. A shell exports a variable that it inherited, and
 * with an inherited SHELLOPTS=allexport (bash) every variable, also after an assignment. An account that exports these
 * names would pass the marker and the job to the program.
 */
export const FORGET_VARIABLES = `set +a
unset at beat below dir env err files id kind left line mark newline out own path perl pids program python rest round size
unset source started state stdin supervisor text top watcher
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
 * Shell functions that search for processes and kill them. They read `id` and `own`, the run's folder. These may be
 * empty: `top`, the program's pid; `out` and `err`; `supervisor`, the name of the run's supervisors. `processes` lists the
 * processes that are found, without supervisors: while these run, no process escapes. `processes supervisors` lists
 * these. Both leave out the script, its descendants, and without `top` its parent, which is the supervisor or the SSH
 * server. Its session is no criterion: dropbear starts all commands of a connection in one session.
 */
export const SEARCH_FUNCTIONS = `
processes() {
  { grep -l -s -F -e "OPS_RUN_ID=$id" /proc/[0-9]*/environ
    [ -z "$supervisor" ] || grep -l -s -F -e "$supervisor" /proc/[0-9]*/cmdline
    ls -ln /proc/[0-9]*/fd/1 /proc/[0-9]*/fd/2 /proc/[0-9]*/cwd
    cat /proc/[0-9]*/stat
  } 2>/dev/null | awk -v top="$top" -v own="$own" -v out="$out" -v err="$err" -v self="$$" -v what="$1" '
    function isOwn(pid) { while (pid != self && pid in parent && parent[pid] != pid) pid = parent[pid]; return pid == self }
    /^\\/proc\\/[0-9]+\\/environ$/ { split($0, part, "/"); hit[part[3]] = 1; next }
    /^\\/proc\\/[0-9]+\\/cmdline$/ { split($0, part, "/"); supervisor[part[3]] = 1; next }
    match($0, /\\/proc\\/[0-9]+\\/(fd\\/[12]|cwd) -> /) {
      target = substr($0, RSTART + RLENGTH); split(substr($0, RSTART), part, "/")
      if (target == out || target == err || index(target, own "/") == 1) hit[part[3]] = 1
      next
    }
    /^[0-9]+ \\(.*\\) [A-Za-z] / {
      pid = $1; sub(/^.*\\) /, ""); split($0, field, " ")
      if (field[1] == "Z" || field[1] == "X") next
      parent[pid] = field[2]
      if (top != "" && (pid == top || field[3] == top || field[4] == top)) hit[pid] = 1
    }
    END {
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
      for path do rm -f -- "$path" 2>/dev/null || rmdir -- "$path" 2>/dev/null; done
    fi
    rm -rf -- "$own" 2>/dev/null || { chmod -R u+rwx -- "$own"; rm -rf -- "$own"; } 2>/dev/null
  fi
  [ ! -d "$own" ]
}
folder() { own=\${TMPDIR:-/tmp}/ops-run-$id; }
`;
