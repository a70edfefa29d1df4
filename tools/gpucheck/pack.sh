#!/usr/bin/env bash
# Packs what check.py needs on a machine with a GPU into one file, for
# `make gpucheck`, which sets the compiler's flags. No GPU is needed here, and
# no Go there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=${1:-bin/gpucheck.tar.gz}
version=${VERSION:-$(git describe --always --dirty --abbrev=12 2>/dev/null || echo dev)}
limit=$((60 * 1000 * 1000))

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bundle=$dir/gpucheck
mkdir "$bundle"

go build -tags gpu -ldflags "-s -w -X main.version=$version" -o "$bundle/mochi" ./cmd/mochi
go test -c -tags gpu -ldflags '-s -w' -o "$bundle/cuda.test" ./model/engine/cuda
go test -c -tags gpu -ldflags '-s -w' -o "$bundle/loss.test" ./model/loss
go test -c -tags gpu -ldflags '-s -w' -o "$bundle/mochi.test" ./cmd/mochi
cp tools/gpucheck/check.py tools/gpucheck/pytorch_gpu.py tools/parity/generate.py LICENSE "$bundle/"

mkdir -p "$(dirname "$out")"
tar -C "$dir" -cz --owner=0 --group=0 -f "$out" gpucheck
bytes=$(stat -c %s "$out")
if [ "$bytes" -gt $limit ]; then
  echo "gpucheck: $out has $((bytes / 1000000)) MB, more than $((limit / 1000000))" >&2
  exit 1
fi
echo "gpucheck: $out ($((bytes / 1000000)) MB), version $version"
echo "gpucheck: there: tar xzf gpucheck.tar.gz && python3 gpucheck/check.py"
