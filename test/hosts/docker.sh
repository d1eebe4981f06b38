#!/usr/bin/env bash
# A Docker Engine for the tests, separate from the machine's: with its own data, sockets and bridge, and TLS with
# client certificates on loopback. Its containers cannot reach other machines: the engine changes no firewall rules,
# and neither masquerades nor forwards.
# Usage: docker.sh up | down
# `up` may be repeated: it keeps a running engine, and describes it in .data/test-hosts/docker/host.json.
# `down` stops it and removes its containers. Images are kept, since creating them takes a minute.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

data=$state/docker
bridge=ops-d-$suffix
pid_file=$run/dockerd.pid
is_up() { is_running "$pid_file" "--data-root $data/engine"; }
export DOCKER_HOST=unix://$run/docker.sock
docker=/usr/bin/docker

make_bridge() {
  ip link show "$bridge" >/dev/null 2>&1 && return
  ip link add "$bridge" type bridge
  ip addr add "$(free_block 202).1/24" dev "$bridge"
  ip link set "$bridge" up
}

# start DRIVER PORT. The empty configuration replaces /etc/docker/daemon.json, which is for the machine's engine.
start() {
  echo '{}' >"$data/daemon.json"
  setsid /usr/sbin/dockerd --config-file "$data/daemon.json" \
    --data-root "$data/engine" --exec-root "$run/docker" --pidfile "$pid_file" --group "$name" \
    --host "$DOCKER_HOST" --host "tcp://127.0.0.1:$2" --tlsverify \
    --tlscacert "$data/certs/ca.pem" --tlscert "$data/certs/server.pem" --tlskey "$data/certs/server-key.pem" \
    --storage-driver "$1" --exec-opt native.cgroupdriver=cgroupfs \
    --bridge "$bridge" --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false \
    --log-level warn </dev/null >"$data/dockerd.log" 2>&1 8>&- 9>&- &
  local child=$!
  for _ in $(seq 300); do
    ! "$docker" version >/dev/null 2>&1 || return 0
    kill -0 "$child" 2>/dev/null || return 1
    sleep 0.1
  done
  stop "$pid_file" "--data-root $data/engine" 10
  return 1
}

up() {
  "$hosts/install.sh" docker
  mkdir -p "$data"
  "$hosts/certificates.sh" "$data/certs"
  ensure_group
  lock_machine
  if ! is_up; then
    rm -f "$pid_file" "$data/host.json"
    make_bridge
    local port
    port=$(free_port)
    # overlay2 is the usual driver. If the checkout itself is on an overlay, only vfs works.
    start overlay2 "$port" || start vfs "$port" || {
      echo "dockerd did not start:" >&2
      tail -5 "$data/dockerd.log" >&2
      exit 1
    }
    echo "$port" >"$data/port"
  fi
  unlock_machine
  "$hosts/images.sh" busybox python-node
  printf '{ "port": %s, "pid": %s, "version": "%s", "socketPath": "%s" }\n' \
    "$(cat "$data/port")" "$(cat "$pid_file")" \
    "$("$docker" version --format '{{.Server.Version}}')" "$run/docker.sock" >"$data/host.json.new"
  mv "$data/host.json.new" "$data/host.json"
}

down() {
  rm -f "$data/host.json"
  if is_up; then
    local containers
    containers=$(timeout 20 "$docker" ps -aq) || containers=
    [ -z "$containers" ] || timeout 60 "$docker" rm -fv $containers >/dev/null || true
  fi
  stop "$pid_file" "--data-root $data/engine" 30
  ip link del "$bridge" 2>/dev/null || true
  # Unmounts what the engine leaves: namespaces of containers always, layers if it was killed. The innermost first.
  awk -v data="$data/engine/" -v run="$run/docker/" 'index($2, data) == 1 || index($2, run) == 1 { print $2 }' \
    /proc/self/mounts | sort -r | xargs -r umount -l
  id "$name" >/dev/null 2>&1 || groupdel "$name" 2>/dev/null || true
  rm -rf "$run/docker" "$run/docker.sock"
  rmdir "$run" 2>/dev/null || true
}

case ${1:-} in
  up) up ;;
  down) down ;;
  *)
    echo "usage: docker.sh up | down" >&2
    exit 2
    ;;
esac
