#!/usr/bin/env bash
# Creates the TLS files of a Docker engine: an authority, a server certificate for loopback, a client certificate, and
# a certificate of another authority, which the server does not trust. Keeps existing files.
# Usage: certificates.sh FOLDER
set -euo pipefail
folder=$1
[ ! -f "$folder/done" ] || exit 0
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

authority() { # authority FILE NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$2" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout "$1-key.pem" -out "$1.pem" 2>/dev/null
}
certificate() { # certificate AUTHORITY FILE NAME EXTENSIONS
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$3" \
    -keyout "$2-key.pem" -out "$2.csr" 2>/dev/null
  openssl x509 -req -in "$2.csr" -CA "$1.pem" -CAkey "$1-key.pem" -CAcreateserial -days 3650 \
    -extfile <(printf "$4") -out "$2.pem" 2>/dev/null
  rm "$2.csr"
}

authority ca 'Authority of the test engine'
authority other-ca 'Another authority'
certificate ca server localhost 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n'
certificate ca client client 'extendedKeyUsage=clientAuth\n'
certificate other-ca stranger stranger 'extendedKeyUsage=clientAuth\n'
touch done
