#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that mochi's make targets need, and
# only those that are missing. Says what it installs.
#
#   tools/deps.sh            to build, train on Fashion-MNIST and run the tests
#   tools/deps.sh images     also what `make images` and the compose test need
#   tools/deps.sh gpu        also what `make test-gpu` needs (Debian's section non-free)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
need() { # need PACKAGE TEST…: PACKAGE is missing when TEST fails
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

ldconfig_has() { PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep "$1"; } # not -q: it would break the pipe
have_compose() { docker compose version || docker-compose version; }
# A client alone builds nothing. The daemon may be another machine's, or a
# container's host's; else its program must be here, to be started.
have_docker() { command -v docker && { timeout 10 docker version || PATH=$PATH:/sbin:/usr/sbin command -v dockerd; }; }

# The one header of CUDA that is compiled against is among the first files of
# nvidia-cuda-dev, whose 774 MB hold much else: 2 MB of it are enough. What is
# cut off there has no signature to check, so the header's own digest is.
cuda_h=55639151a971a10c28d627a98dcd406c6320a5b4e5b67dd9d229056ed5c8e045 # of 11.8.89
cuda_header() { # cuda_header FOLDER: FOLDER/include/cuda.h; fails when it cannot be had so
  local uri
  uri=$(apt-get download --print-uris nvidia-cuda-dev | sed -n "s/^'\([^']*\)'.*/\1/p")
  if command -v curl >/dev/null; then
    curl -fsS --max-time 60 -r 0-1999999 -o "$1/head.deb" "$uri" || return 1
  else
    wget -q -T 60 --header 'Range: bytes=0-1999999' -O "$1/head.deb" "$uri" || return 1
  fi
  mkdir -p "$1/usr/include"
  (dpkg-deb --fsys-tarfile "$1/head.deb" | tar -x -C "$1" ./usr/include/cuda.h) 2>/dev/null || true # it ends early
  rm -f "$1/head.deb"
  echo "$cuda_h  $1/usr/include/cuda.h" | sha256sum --check --status 2>/dev/null
}

have_libc() { test -e /usr/include/stdlib.h; }
have_download() { command -v curl || command -v wget; }

need make command -v make
need git command -v git
need gcc command -v gcc # go test -race links with it
need g++ command -v g++ # CUDA kernels on the CPU
need libc6-dev have_libc
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
need libdnnl-dev test -e /usr/include/dnnl.h # --engine onednn
need libjpeg62-turbo-dev test -e /usr/include/jpeglib.h # JPEG
need libdeflate-dev test -e /usr/include/libdeflate.h # PNG
need dataset-fashion-mnist test -e /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz
if [ "${1:-}" = images ]; then
  need docker.io have_docker
  need docker-compose have_compose
  need debootstrap test -e /usr/sbin/debootstrap
  need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
fi

if [ "${1:-}" = gpu ]; then
  need libnvrtc11.2 ldconfig_has libnvrtc.so
  need wget have_download
  cuda=${XDG_CACHE_HOME:-$HOME/.cache}/mochi/cuda
  headers=yes
  for d in /usr/local/cuda /usr "$cuda"; do
    [ -e "$d/include/cuda.h" ] && headers=
  done
fi

if [ ${#missing[@]} -gt 0 ] || [ -n "${headers:-}" ]; then
  if ! command -v apt-get >/dev/null; then
    echo "deps: not a Debian or Ubuntu system; install what these packages hold: ${missing[*]}" >&2
    exit 1
  fi
  sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "deps: run as root: apt-get install ${missing[*]}" >&2; exit 1; }
    sudo=(sudo)
  fi
  "${sudo[@]}" apt-get -qq update </dev/null
  if [ "${1:-}" = gpu ] && [ -z "$(apt-cache madison nvidia-cuda-dev)" ]; then
    # The section that holds CUDA, from where this machine has the others.
    echo "deps: adding Debian's section non-free"
    list=/etc/apt/sources.list.d/mochi-non-free
    for f in /etc/apt/sources.list.d/*.sources; do
      if grep -qs '^Signed-By:.*debian-archive-keyring' "$f"; then
        sed 's/^Components:.*/Components: non-free/' "$f"
        echo
      fi
    done | "${sudo[@]}" tee $list.sources >/dev/null
    if [ -e /etc/apt/sources.list ]; then
      sed -nE 's/^(deb .*debian[^ ]* [^ ]+) main.*/\1 non-free/p' /etc/apt/sources.list | "${sudo[@]}" tee $list.list >/dev/null
    fi
    "${sudo[@]}" apt-get -qq update </dev/null
  fi
  # Since Debian 13 docker's client is a package apart.
  if [[ " ${missing[*]} " == *" docker.io "* ]] && ! command -v docker >/dev/null && [ -n "$(apt-cache madison docker-cli)" ]; then
    missing+=(docker-cli)
  fi
  if [ ${#missing[@]} -gt 0 ]; then
    echo "deps: installing ${missing[*]}"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get -qq install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
  fi
  if [ -n "${headers:-}" ]; then
    # Of nvidia-cuda-dev only what the compiler and the linker read: the package
    # itself wants 5 GB of libraries, and a driver.
    unpacked=$(mktemp -d)
    if cuda_header "$unpacked"; then
      echo "deps: cuda.h of nvidia-cuda-dev, to $cuda"
      # -lcuda finds a driver's name and, as all calls go through
      # model/engine/cuda/driver, needs nothing of it.
      mkdir -p "$cuda/lib64/stubs"
      gcc -shared -Wl,-soname,libcuda.so.1 -o "$cuda/lib64/stubs/libcuda.so" -x c /dev/null
    else
      echo "deps: unpacking headers of nvidia-cuda-dev into $cuda (774 MB to download, some minutes)"
      (cd "$unpacked" && apt-get -qq -o APT::Sandbox::User=root download nvidia-cuda-dev </dev/null &&
        dpkg-deb --fsys-tarfile nvidia-cuda-dev_*.deb | tar -x --wildcards ./usr/include '*/stubs/libcuda.so')
      mkdir -p "$cuda/lib64"
      cp -r "$unpacked"/usr/lib/*/stubs "$cuda/lib64/"
    fi
    mkdir -p "$cuda/include"
    cp -r "$unpacked/usr/include/." "$cuda/include/"
    rm -rf "$unpacked"
  fi
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
