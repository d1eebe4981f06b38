#!/usr/bin/env bash
# podman's service with the API of a Docker Engine for the tests, separate from the machine's: with its own data and
# socket. Its containers have no network.
# Usage: podman.sh up | down
# `up` may be repeated: it keeps a running service, and describes it in .data/test-hosts/podman/host.json.
# `down` stops it and removes its containers. Images are kept.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

data=$state/podman
own=$run/podman
pid_file=$run/podman.pid
is_up() { is_running "$pid_file" "--root $data/storage"; }
export DOCKER_HOST=unix://$run/podman.sock
docker=/usr/bin/docker

# podman's API asks for more open files and processes than a process without CAP_SYS_RESOURCE may have.
make_runtime() {
  cat >"$own/runc" <<'RUNTIME'
#!/bin/sh
previous=
for each; do
  case $previous in --bundle | -b) sed -i 's/1048576/4096/g' "$each/config.json" ;; esac
  previous=$each
done
exec runc "$@"
RUNTIME
  chmod 755 "$own/runc"
}

# In files instead of shared memory, which all of the machine's podman processes use.
make_settings() {
  printf '[engine]\nlock_type = "file"\nevents_logger = "file"\n' >"$own/containers.conf"
}

start() {
  CONTAINERS_CONF=$own/containers.conf setsid podman \
    --root "$data/storage" --runroot "$own/run" --tmpdir "$own/tmp" --storage-driver vfs \
    --cgroup-manager cgroupfs --runtime "$own/runc" \
    system service --time 0 "$DOCKER_HOST" </dev/null >"$data/podman.log" 2>&1 8>&- 9>&- &
  local child=$!
  for _ in $(seq 100); do
    if "$docker" version >/dev/null 2>&1; then
      echo "$child" >"$pid_file"
      # For the account of ssh.sh.
      chgrp "$name" "$run/podman.sock"
      chmod 660 "$run/podman.sock"
      return 0
    fi
    kill -0 "$child" 2>/dev/null || break
    sleep 0.1
  done
  kill "$child" 2>/dev/null || true
  echo "podman did not start:" >&2
  tail -5 "$data/podman.log" >&2
  return 1
}

up() {
  "$hosts/install.sh" docker podman
  mkdir -p "$data" "$own"
  ensure_group
  if ! is_up; then
    rm -f "$pid_file" "$data/host.json" "$run/podman.sock"
    make_runtime
    make_settings
    start
  fi
  "$hosts/images.sh" no-ps
  printf '{ "pid": %s, "version": "%s", "socketPath": "%s" }\n' "$(cat "$pid_file")" \
    "$("$docker" version --format '{{.Server.Version}}')" "$run/podman.sock" >"$data/host.json.new"
  mv "$data/host.json.new" "$data/host.json"
}

down() {
  rm -f "$data/host.json"
  if is_up; then
    local containers
    containers=$(timeout 20 "$docker" ps -aq) || containers=
    [ -z "$containers" ] || timeout 60 "$docker" rm -fv $containers >/dev/null || true
  fi
  stop "$pid_file" "--root $data/storage" 10
  # Unmounts what the service leaves. The innermost first.
  awk -v data="$data/storage" -v run="$own/" 'index($2, data) == 1 || index($2, run) == 1 { print $2 }' \
    /proc/self/mounts | sort -r | xargs -r umount -l
  # Groups in use are kept.
  find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} + 2>/dev/null || true
  id "$name" >/dev/null 2>&1 || groupdel "$name" 2>/dev/null || true
  rm -rf --one-file-system "$own" "$run/podman.sock"
  rmdir "$run" 2>/dev/null || true
}

case ${1:-} in
  up) up ;;
  down) down ;;
  *)
    echo "usage: podman.sh up | down" >&2
    exit 2
    ;;
esac
