#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that mochi's make targets need, and
# only those that are missing. Says what it installs.
#
#   tools/deps.sh            to build, train on Fashion-MNIST and run the tests
#   tools/deps.sh images     also what `make images` and the compose test need
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
need() { # need PACKAGE TEST…: PACKAGE is missing when TEST fails
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

have_compose() { docker compose version || docker-compose version; }
have_libc() { test -e /usr/include/stdlib.h; }

need make command -v make
need git command -v git
need gcc command -v gcc # go test -race links with it
need libc6-dev have_libc
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
need libdnnl-dev test -e /usr/include/dnnl.h # --engine onednn
need libjpeg62-turbo-dev test -e /usr/include/jpeglib.h # JPEG
need dataset-fashion-mnist test -e /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz
if [ "${1:-}" = images ]; then
  need docker.io command -v docker
  need docker-compose have_compose
  need debootstrap test -e /usr/sbin/debootstrap
  need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
fi

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "deps: not a Debian or Ubuntu system; install what these packages hold: ${missing[*]}" >&2
    exit 1
  fi
  sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "deps: run as root: apt-get install ${missing[*]}" >&2; exit 1; }
    sudo=(sudo)
  fi
  echo "deps: installing ${missing[*]}"
  "${sudo[@]}" apt-get -qq update </dev/null
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
fi

want=$(sed -n 's/^go //p' go.mod)
if ! command -v go >/dev/null; then
  echo "deps: Go is missing; install Go $want or newer from https://go.dev/dl/ and put it on the PATH" >&2
  exit 1
fi
have=$(go env GOVERSION)
have=${have#go}
if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
  echo "deps: Go $have is too old; install Go $want or newer from https://go.dev/dl/" >&2
  exit 1
fi
echo "deps: everything is here (Go $have)"
