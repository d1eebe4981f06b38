#!/usr/bin/env bash
# SSH servers for the tests, of OpenSSH and one of dropbear, separate from the machine's (nothing below /etc/ssh is read or written):
#   plain  on this machine's loopback
#   jump   in a network namespace that is connected to this machine by one veth pair
#   inner  on that namespace's loopback, so that only the jump host reaches it
#   python, bare  on this machine's loopback, with a PATH without Perl, and with one without Perl and Python
#   accounts  on this machine's loopback, for accounts with other shells and start files (make_shell_accounts)
#   dropbear  on this machine's loopback, the other server that many small systems have
# Usage: ssh.sh up | down
# `up` may be repeated: it keeps running servers, and describes them in .data/test-hosts/ssh/hosts.json.
# `down` stops them and removes the account with its files. Keys are kept, since creating them takes seconds.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

keys=$state/ssh
wire=ops-s-$suffix
servers=(plain jump inner python bare accounts)
# The names of more accounts, after that of the account and a hyphen.
shell_accounts=(tcsh csh fish busybox exec-bash exec-fish slow forced limited)
dropbear_key=$keys/dropbear_key
block_file=$keys/block
port_file=$keys/port

make_key() { # make_key FILE ARGUMENTS...
  local file=$keys/$1
  shift
  [ -f "$file" ] || ssh-keygen -q -C "$(basename "$file")" -f "$file" "$@"
}

# One key of each supported type. `other` is not authorized on any server.
make_keys() {
  mkdir -p "$keys"
  [ -f "$keys/passphrase" ] || openssl rand -base64 18 | tr -d '\n' >"$keys/passphrase"
  local passphrase
  passphrase=$(cat "$keys/passphrase")
  make_key ed25519 -t ed25519 -N ''
  make_key rsa -t rsa -b 3072 -N ''
  make_key ecdsa -t ecdsa -b 256 -N ''
  make_key ed25519Pass -t ed25519 -N "$passphrase"
  make_key rsaPass -t rsa -b 3072 -N "$passphrase"
  make_key rsaPem -t rsa -b 3072 -m PEM -N ''
  make_key rsaPemPass -t rsa -b 3072 -m PEM -N "$passphrase"
  make_key other -t ed25519 -N ''
  # Each server has its own host key, so that a mix-up is detected.
  local server
  for server in "${servers[@]}"; do make_key "host_$server" -t ed25519 -N ''; done
  [ -f "$dropbear_key" ] || dropbearkey -t ed25519 -f "$dropbear_key" >/dev/null 2>&1
  dropbearkey -y -f "$dropbear_key" | grep '^ssh-' >"$keys/host_dropbear.pub"
}

make_account() {
  ensure_group
  id "$name" >/dev/null 2>&1 && return
  useradd --home-dir "$home" --create-home --gid "$name" --shell /bin/bash "$name"
  chmod 750 "$home"
  # A new password for each account, so that passwords of earlier runs are not valid.
  openssl rand -base64 18 | tr -d '\n' >"$keys/password"
  printf '%s:%s\n' "$name" "$(cat "$keys/password")" | chpasswd
  install -d -m 700 -o "$name" -g "$name" "$home/.ssh"
  local key
  for key in ed25519 rsa ecdsa ed25519Pass rsaPass rsaPem rsaPemPass; do cat "$keys/$key.pub"; done \
    >"$home/.ssh/authorized_keys"
  chmod 600 "$home/.ssh/authorized_keys"
  chown "$name:" "$home/.ssh/authorized_keys"
}

# What tests need that start an sshd with other settings (test/support/sshd.ts): accounts that may not sign in or run, and
# names for sshd with a PAM service each, because PAM's service has the name of the program.
make_variants() {
  local variant
  for variant in expired locked renew; do
    id "$name-$variant" >/dev/null 2>&1 && continue
    useradd --home-dir "$home" --no-create-home --gid "$name" --shell /bin/bash "$name-$variant"
    printf '%s:%s\n' "$name-$variant" "$(cat "$keys/password")" | chpasswd
  done
  chage --expiredate 1 "$name-expired"
  usermod --lock "$name-locked"
  # Its password has expired.
  printf '%s:%s\n' "$name-renew" "$(cat "$keys/password")" | chpasswd
  chage --lastday 0 "$name-renew"
  for variant in permit unix; do
    printf '%s required pam_%s.so\n' auth "$variant" account unix session permit >"/etc/pam.d/$name-$variant"
    ln -sfn /usr/sbin/sshd "$run/$name-$variant"
  done
}

# Accounts with the password of the account: with a login shell that is not POSIX, with start files that start another
# shell, take 12 s, or allow few processes, and with a forced command.
make_shell_accounts() {
  local hash each shell
  hash=$(getent shadow "$name" | cut -d: -f2)
  ln -sfn /bin/busybox "$run/sh"
  for each in "${shell_accounts[@]}"; do
    ! id "$name-$each" >/dev/null 2>&1 || continue
    case $each in
      tcsh) shell=/bin/tcsh ;;
      csh) shell=/bin/bsd-csh ;;
      fish) shell=/usr/bin/fish ;;
      busybox) shell=$run/sh ;;
      *) shell=/bin/bash ;;
    esac
    useradd --home-dir "$home-$each" --create-home --gid "$name" --shell "$shell" --password "$hash" "$name-$each"
    chmod 750 "$home-$each"
    case $each in
      exec-bash) echo 'exec bash' ;;
      exec-fish) echo 'exec fish' ;;
      slow) echo 'sleep 12' ;;
      limited) echo '[ ! -f path ] || PATH=$(cat path); ulimit -u "$(cat limit 2>/dev/null || echo 1000)"' ;;
    esac >"$home-$each/.bashrc"
  done
}

make_namespace() {
  [ ! -e "/run/netns/$name" ] || return 0
  local block=$1
  ip netns add "$name"
  ip link add "$wire" type veth peer name eth0 netns "$name"
  ip addr add "$block.1/30" dev "$wire"
  ip link set "$wire" up
  ip -netns "$name" link set lo up
  ip -netns "$name" addr add "$block.2/30" dev eth0
  ip -netns "$name" link set eth0 up
}

# If a keyword occurs twice, the first value counts (sshd_config(5)), so the lines of a server come first.
configure() { # configure SERVER ADDRESS LINES...
  local server=$1 address=$2
  shift 2
  {
    printf '%s\n' "$@"
    cat <<CONFIG
ListenAddress $address
HostKey $keys/host_$server
PidFile $run/sshd-$server.pid
AllowUsers $name
AuthorizedKeysFile .ssh/authorized_keys
PasswordAuthentication yes
KbdInteractiveAuthentication no
PermitRootLogin no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
AllowAgentForwarding no
AllowTcpForwarding no
X11Forwarding no
# Many concurrent tests connect from one address.
MaxStartups 100
# The default limit of channels per connection; tests reach it.
MaxSessions 10
# The engine of docker.sh, for tests of Docker over SSH.
SetEnv DOCKER_HOST=unix://$run/docker.sock
Subsystem sftp internal-sftp
LogLevel VERBOSE
CONFIG
  } >"$keys/sshd-$server.conf"
}

# make_path FOLDER PATTERN...: a folder of the machine's programs for a PATH, without those that match a pattern.
make_path() {
  local folder=$1 pattern
  shift
  [ ! -d "$folder" ] || return 0
  local without=()
  for pattern in "$@"; do without+=(! -name "$pattern"); done
  # Under another name until it is complete, because a folder that exists is kept.
  rm -rf "$folder.new"
  mkdir "$folder.new"
  find /usr/bin -maxdepth 1 ! -type d "${without[@]}" -exec ln -s -t "$folder.new" {} +
  mv "$folder.new" "$folder"
}

start() { # start SERVER [WRAPPER...]
  local server=$1 config=$keys/sshd-$1.conf
  shift
  launch "$server" "$config" "$@" /usr/sbin/sshd -f "$config" -E "$keys/sshd-$server.log"
}

# For the account only, without forwarding.
start_dropbear() { # start_dropbear ADDRESS
  launch dropbear "$dropbear_key" dropbear -p "$1" -r "$dropbear_key" -P "$run/sshd-dropbear.pid" -G "$name" -w -j -k \
    2>"$keys/sshd-dropbear.log"
}

# launch SERVER PATTERN COMMAND...: waits until the server's process runs, whose command line contains the pattern.
launch() {
  local server=$1 pattern=$2 pid_file=$run/sshd-$1.pid
  shift 2
  ! is_running "$pid_file" "$pattern" || return 0
  rm -f "$pid_file"
  "$@" 8>&- 9>&-
  for _ in $(seq 200); do
    ! is_running "$pid_file" "$pattern" || return 0
    sleep 0.05
  done
  echo "The SSH server ($server) did not start:" >&2
  tail -5 "$keys/sshd-$server.log" >&2
  return 1
}

describe() { # describe SERVER ADDRESS PORT
  printf '  "%s": { "host": "%s", "port": %s, "hostKey": { "type": "ssh-ed25519", "fingerprint": "%s" }, "pid": %s }' \
    "$1" "$2" "$3" "$(ssh-keygen -lf "$keys/host_$1.pub" | cut -d' ' -f2)" "$(cat "$run/sshd-$1.pid")"
}

up() {
  "$hosts/install.sh" ssh
  mkdir -p /run/sshd
  make_keys
  make_account
  make_variants
  make_shell_accounts
  lock_machine
  if [ ! -e "/run/netns/$name" ]; then free_block 201 >"$block_file"; fi
  local block port
  block=$(cat "$block_file")
  make_namespace "$block"
  if ! is_running "$run/sshd-plain.pid" "$keys/sshd-plain.conf"; then free_port >"$port_file"; fi
  port=$(cat "$port_file")
  configure plain "127.0.0.1:$port"
  configure jump "$block.2:22" 'AllowTcpForwarding local'
  configure inner 127.0.0.1:22
  make_path "$run/python-path" 'perl*'
  make_path "$run/bare-path" 'perl*' 'python*'
  # Of several SetEnv lines the first counts.
  configure python "127.0.0.2:$port" "SetEnv PATH=$run/python-path DOCKER_HOST=unix://$run/docker.sock"
  configure bare "127.0.0.3:$port" "SetEnv PATH=$run/bare-path DOCKER_HOST=unix://$run/docker.sock"
  configure accounts "127.0.0.5:$port" "AllowUsers $name-*" 'MaxSessions 1'
  printf '%s\n' "Match User $name-forced" 'ForceCommand /bin/bash' >>"$keys/sshd-accounts.conf"
  start accounts
  start plain
  start python
  start bare
  start_dropbear "127.0.0.4:$port"
  start jump nsenter --net="/run/netns/$name"
  start inner nsenter --net="/run/netns/$name"
  unlock_machine
  {
    printf '{\n  "user": "%s",\n  "version": "%s",\n' "$name" "$(ssh -V 2>&1 | cut -d' ' -f1 | cut -d, -f1 | tr _ ' ')"
    describe plain 127.0.0.1 "$port" && printf ',\n'
    describe jump "$block.2" 22 && printf ',\n'
    describe inner 127.0.0.1 22 && printf ',\n'
    describe python 127.0.0.2 "$port" && printf ',\n'
    describe bare 127.0.0.3 "$port" && printf ',\n'
    describe accounts 127.0.0.5 "$port" && printf ',\n'
    describe dropbear 127.0.0.4 "$port" && printf '\n}\n'
  } >"$keys/hosts.json.new"
  mv "$keys/hosts.json.new" "$keys/hosts.json"
}

down() {
  rm -f "$keys/hosts.json"
  local server
  for server in "${servers[@]}"; do stop "$run/sshd-$server.pid" "$keys/sshd-$server.conf" 5; done
  stop "$run/sshd-dropbear.pid" "$dropbear_key" 5
  userdel "$name-expired" 2>/dev/null || true
  userdel "$name-locked" 2>/dev/null || true
  userdel "$name-renew" 2>/dev/null || true
  rm -f "/etc/pam.d/$name"-{permit,unix} "$run/$name"-{permit,unix}
  local each
  for each in "${shell_accounts[@]}"; do
    pkill -KILL -u "$name-$each" 2>/dev/null || true
    userdel --force --remove "$name-$each" 2>/dev/null || true
  done
  rm -f "$run/sh"
  if id "$name" >/dev/null 2>&1; then
    # By user id, so that all processes of the account are killed and no others.
    pkill -KILL -u "$(id -u "$name")" 2>/dev/null || true
    for _ in $(seq 100); do
      pgrep -u "$(id -u "$name")" >/dev/null || break
      sleep 0.05
    done
    userdel --force "$name" 2>/dev/null || true
    groupdel "$name" 2>/dev/null || true
    rm -rf "$home"
  fi
  [ ! -e "/run/netns/$name" ] || ip netns del "$name"
  ip link del "$wire" 2>/dev/null || true
  rm -rf "$run"/{python,bare}-path{,.new}
  rmdir "$run" 2>/dev/null || true
}

case ${1:-} in
  up) up ;;
  down) down ;;
  *)
    echo "usage: ssh.sh up | down" >&2
    exit 2
    ;;
esac
