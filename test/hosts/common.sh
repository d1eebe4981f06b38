# shellcheck shell=bash
# Shared by the other scripts in this folder. Sourced, not run.
#
# Two checkouts on one machine must not interfere: names on the machine contain six digits of a hash of the
# checkout's path, and free ports and address blocks are chosen.
set -euo pipefail

hosts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
project=$(cd "$hosts/../.." && pwd -P)
suffix=$(printf %s "$project" | sha256sum | cut -c1-6)

# Keys, certificates, settings and logs. Only root can read them; they are kept between runs.
state=$project/.data/test-hosts
# The account, its group and the network namespace (15 characters, the most that an interface may have).
name=ops-test-$suffix
# The account's home and the sockets are outside the checkout: its parent folders may be unreadable for other
# users, and the path of a socket has at most 107 bytes.
home=/var/lib/$name
run=/run/$name

if [ "$(id -u)" != 0 ]; then
  echo "The test hosts need root: they create an account, network namespaces and containers." >&2
  exit 1
fi
umask 022
mkdir -p "$state" "$run"
chmod 700 "$state"

# One process at a time: in this checkout (fd 8), and on the machine while a free port or address is chosen (fd 9).
# Servers are started with both descriptors closed, or they would keep the locks.
exec 8>"$state/$(basename "$0" .sh).lock"
flock 8
lock_machine() {
  exec 9>/run/ops-center-test-hosts.lock
  flock 9
}
unlock_machine() {
  exec 9>&-
}

# is_running PIDFILE PATTERN: whether the process exists and its command line still contains the pattern.
is_running() {
  [ -s "$1" ] && tr '\0' ' ' <"/proc/$(cat "$1")/cmdline" 2>/dev/null | grep -qF -- "$2"
}

# stop PIDFILE PATTERN SECONDS: terminates the process, and kills it after that time.
stop() {
  if is_running "$1" "$2"; then
    local pid
    pid=$(cat "$1")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq "$(($3 * 20))"); do
      is_running "$1" "$2" || break
      sleep 0.05
    done
    if is_running "$1" "$2"; then kill -KILL "$pid" 2>/dev/null || true; fi
  fi
  rm -f "$1"
}

free_port() {
  local port
  for port in $(shuf -i 20000-29999 -n 50); do
    if [ -z "$(ss -Hltn "sport = :$port")" ]; then
      echo "$port"
      return
    fi
  done
  echo "No port between 20000 and 29999 was found free." >&2
  return 1
}

# free_block SECOND: prints the first three numbers of a free block 10.SECOND.x.0/24.
free_block() {
  local third
  for third in $(shuf -i 1-254 -n 50); do
    if ! ip -4 -oneline addr show | grep -qF " 10.$1.$third."; then
      echo "10.$1.$third"
      return
    fi
  done
  echo "No free address block was found below 10.$1." >&2
  return 1
}

# ensure_group: creates the account's group, which may also use the Docker socket, like the usual group `docker`.
ensure_group() {
  getent group "$name" >/dev/null || groupadd --system "$name"
}
