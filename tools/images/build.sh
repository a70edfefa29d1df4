#!/usr/bin/env bash
# Builds the image mochi:latest, or with the argument gpu the image mochi:gpu.
# With Go on this machine, the modules come from its cache (vendored into the
# build context), so the build needs no network; without Go, the build stage
# downloads them.
#
# With the argument quick, mochi:latest gets the program that make build makes,
# so that nothing is compiled in a container, and no image with Go is needed.
# Where this machine's libraries may differ from the image's (another release of
# Debian), quick does nothing special.
#
# Where NVIDIA's base image cannot be pulled, mochi:gpu is built on Debian's, to
# try the build: it starts and says what it misses, but has no CUDA libraries.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=${VERSION:-$(git describe --always --dirty --abbrev=12 2>/dev/null || echo dev)}
file=Dockerfile
image=${MOCHI_IMAGE:-mochi:latest}
arguments=(--build-arg VERSION="$version")

quick=''
if [ "${1:-}" = quick ] && command -v go >/dev/null && grep -qsx 'VERSION_CODENAME=bookworm' /etc/os-release; then quick=1; fi

bash tools/images/build-base.sh ${quick:+debian}

if [ "${1:-}" = gpu ]; then
  file=Dockerfile.gpu
  image=${MOCHI_GPU_IMAGE:-mochi:gpu}
  cuda=${CUDA_IMAGE:-$(sed -n 's/^ARG CUDA_IMAGE=//p' Dockerfile.gpu)}
  if ! docker image inspect "$cuda" >/dev/null 2>&1 && ! timeout 1800 docker pull -q "$cuda" >/dev/null 2>&1; then
    echo "images: $cuda cannot be pulled; on debian:bookworm-slim instead, without CUDA's libraries"
    cuda=debian:bookworm-slim
  fi
  arguments+=(--build-arg CUDA_IMAGE="$cuda")
fi

if [ -n "$quick" ]; then
  make --no-print-directory build VERSION="$version"
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
  mkdir "$context/bin"
  cp go.mod go.sum "$context"
  cp bin/mochi "$context/bin/"
  docker build -f Dockerfile --build-arg PREBUILT=1 --build-arg BUILDER=debian:bookworm-slim "${arguments[@]}" -t "$image" "$context"
elif command -v go >/dev/null; then
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
  git ls-files -z --cached --others --exclude-standard |
    { xargs -0 sh -c 'for f; do test ! -f "$f" || printf "%s\0" "$f"; done' sh; } |
    tar --null -T - -c | tar -C "$context" -x
  (cd "$context" && go mod vendor)
  if [ $file = Dockerfile.gpu ]; then # what make build-gpu has found and made, so that the build stage need not
    headers=${XDG_CACHE_HOME:-$HOME/.cache}/mochi/cuda
    if [ -e "$headers/include/cuda.h" ]; then cp -r "$headers" "$context/cuda"; fi
    cp model/engine/cuda/fallback/ptx/*.ptx "$context/model/engine/cuda/fallback/ptx/" 2>/dev/null || true
  fi
  docker build -f "$context/$file" --build-arg VENDORED=1 "${arguments[@]}" -t "$image" "$context"
else
  docker build -f "$file" "${arguments[@]}" --build-arg GOPROXY="${GOPROXY:-}" -t "$image" .
fi
echo "images: $image is ready ($version)"
