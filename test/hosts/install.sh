#!/usr/bin/env bash
# Installs the packages of the test hosts on Debian 12, if they are missing. It starts no service and enables none at
# boot: running tests must not turn a machine into a server.
# Usage: install.sh [ssh] [docker] [podman] [local] [shells]   (without names: all)
set -euo pipefail
[ "$#" -gt 0 ] || set -- ssh docker podman local shells

missing=()
need() { # need PACKAGE COMMAND
  PATH=$PATH:/usr/sbin:/sbin command -v "$2" >/dev/null || missing+=("$1")
}
for kind in "$@"; do
  case $kind in
    ssh)
      need openssh-server sshd
      need openssh-client ssh-keygen
      need iproute2 ip
      need procps pgrep
      need dropbear-bin dropbear
      need tcsh tcsh
      need csh bsd-csh
      need fish fish
      [ -x /bin/busybox ] || missing+=(busybox-static)
      ;;
    docker)
      need docker.io dockerd
      # dockerd requires the program even if it must not change the firewall.
      need iptables iptables
      need iproute2 ip
      need openssl openssl
      need mmdebstrap mmdebstrap
      [ -x /bin/busybox ] && /bin/busybox --list | grep -qx ash || missing+=(busybox-static)
      ;;
    podman)
      need podman podman
      need runc runc
      ;;
    local)
      need bubblewrap bwrap
      # System call numbers, for comparison with those of the seccomp filter.
      [ -e /usr/include/asm-generic/unistd.h ] || missing+=(linux-libc-dev)
      ;;
    shells) # that hosts have as `sh`, besides Debian's own
      need mksh mksh
      need zsh zsh
      need busybox-static busybox
      ;;
    *)
      echo "unknown kind of host: $kind" >&2
      exit 2
      ;;
  esac
done
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "Missing for the test hosts: ${missing[*]}. Install them, or run this as root on Debian." >&2
  exit 1
fi
echo "Installing for the test hosts: ${missing[*]}" >&2

# Prevents packages from starting their services (policy-rc.d, invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

for package in "${missing[@]}"; do
  case $package in
    openssh-server) services=(ssh.service) ;;
    docker.io) services=(docker.service docker.socket containerd.service) ;;
    podman) services=(podman.service podman.socket podman-restart.service podman-auto-update.service podman-auto-update.timer) ;;
    *) continue ;;
  esac
  systemctl disable --quiet "${services[@]}" 2>/dev/null || true
done
