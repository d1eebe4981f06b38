#!/usr/bin/env bash
# Creates images from Debian packages and this checkout's Node, for the engine of docker.sh, which pulls none.
# Archives are kept in .data/test-hosts/images, so that only the first run creates them.
# Usage: images.sh NAME...   (without DOCKER_HOST only the archives are created)
#   busybox      busybox:test: busybox only
#   no-ps        no-ps:test: busybox without ps
#   python-node  python-node:test: python3, node, bash; no package manager
#   node-slim    node:24.21.0-bookworm-slim: replaces the image of that name in a Dockerfile: apt, node, npm
set -euo pipefail
hosts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
project=$(cd "$hosts/../.." && pwd -P)
archives=$project/.data/test-hosts/images
docker=/usr/bin/docker
mkdir -p "$archives"
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
# The mode of the folder becomes that of / in the image, which other users than root must be able to enter.
chmod 755 "$work"
root=$work/root

# Installs packages into $root. `extract` unpacks them without running their scripts; `apt` creates a complete system.
debian() { # debian VARIANT PACKAGES
  local mirror
  # Either of the two locations may be missing.
  mirror=$({ cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true; } |
    awk '$1 == "URIs:" || $1 == "deb" { if (!found++) print $2 }')
  mmdebstrap --quiet --variant="$1" --include="$2" --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$root" "${mirror:-http://deb.debian.org/debian}" >"$work/log" 2>&1 || {
    tail -5 "$work/log" >&2
    return 1
  }
  # A container gets its own /dev.
  rm -rf "$root/dev"
  mkdir "$root/dev"
}

node_and_user() {
  install -D -m 755 "$project"/node_modules/node-linux-*/bin/node "$root/usr/local/bin/node"
  # As in the original image. Without the packages' scripts there are no accounts.
  [ -s "$root/etc/passwd" ] || cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
  [ -s "$root/etc/group" ] || cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
  echo 'node:x:1000:1000::/home/node:/bin/bash' >>"$root/etc/passwd"
  echo 'node:x:1000:' >>"$root/etc/group"
  install -d -o 1000 -g 1000 "$root/home/node"
}

fill_busybox() {
  mkdir -p "$root"/{bin,dev,etc,proc,root,sys,tmp,var}
  cp /bin/busybox "$root/bin/"
  chroot "$root" /bin/busybox --install -s /bin
  chmod 1777 "$root/tmp"
  printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
}

fill_no_ps() {
  fill_busybox
  rm "$root/bin/ps"
}

fill_python_node() {
  debian extract base-files,base-passwd,bash,dash,coreutils,grep,sed,findutils,libc-bin,python3,libstdc++6,libgcc-s1,util-linux
  # Links that the packages' scripts would have created.
  [ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
  [ -e "$root/usr/bin/python3" ] || ln -s python3.11 "$root/usr/bin/python3"
  node_and_user
}

fill_node_slim() {
  debian apt ca-certificates
  node_and_user
  (cd "$work" && npm pack --silent npm@11 >/dev/null)
  mkdir -p "$root/usr/local/lib/node_modules/npm"
  tar -xzf "$work"/npm-*.tgz -C "$root/usr/local/lib/node_modules/npm" --strip-components=1
  chmod 755 "$root"/usr/local/lib/node_modules/npm/bin/*.js
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
  ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
  # The machine may reach the registries only through a proxy with a certificate that only this machine trusts.
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
}

image() { # image NAME TAG CHANGES...: creates the archive if it is missing, and imports it into the engine
  local archive=$archives/$1.tar tag=$2 fill=fill_${1//-/_}
  shift 2
  if [ ! -f "$archive" ]; then
    echo "Creating the image $tag" >&2
    mkdir "$root"
    "$fill"
    tar -C "$root" -cf "$archive.part" .
    rm -rf --one-file-system "$root"
    mv "$archive.part" "$archive"
    [ -z "${DOCKER_HOST:-}" ] || "$docker" image rm "$tag" >/dev/null 2>&1 || true
  fi
  [ -n "${DOCKER_HOST:-}" ] || return 0
  "$docker" image inspect "$tag" >/dev/null 2>&1 || "$docker" import "$@" "$archive" "$tag" >/dev/null
}

path='ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
bundle=/etc/ssl/certs/ca-certificates.crt
for name in "$@"; do
  case $name in
    busybox) image busybox busybox:test --change 'ENV PATH=/bin' --change 'CMD ["sh"]' ;;
    no-ps) image no-ps no-ps:test --change 'ENV PATH=/bin' --change 'CMD ["sh"]' ;;
    python-node) image python-node python-node:test --change "$path" --change 'CMD ["node"]' ;;
    node-slim)
      image node-slim node:24.21.0-bookworm-slim --change "$path" --change 'CMD ["node"]' \
        --change "ENV NODE_EXTRA_CA_CERTS=$bundle npm_config_cafile=$bundle"
      ;;
    *)
      echo "unknown image: $name" >&2
      exit 2
      ;;
  esac
done
