#!/usr/bin/env bash
# Builds the image mochi:latest. With Go on this machine, the modules come
# from its cache (vendored into the build context), so the build needs no
# network; without Go, the build stage downloads them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

image=${MOCHI_IMAGE:-mochi:latest}
version=${VERSION:-$(git describe --always --dirty --abbrev=12 2>/dev/null || echo dev)}

bash tools/images/build-base.sh

if command -v go >/dev/null; then
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
  git ls-files -z --cached --others --exclude-standard |
    { xargs -0 sh -c 'for f; do test ! -f "$f" || printf "%s\0" "$f"; done' sh; } |
    tar --null -T - -c | tar -C "$context" -x
  (cd "$context" && go mod vendor)
  docker build --build-arg VENDORED=1 --build-arg VERSION="$version" -t "$image" "$context"
else
  docker build --build-arg VERSION="$version" --build-arg GOPROXY="${GOPROXY:-}" -t "$image" .
fi
echo "images: $image is ready ($version)"
