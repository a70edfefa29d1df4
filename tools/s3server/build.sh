#!/usr/bin/env bash
# Builds versitygw, an S3 server over a folder, as bin/s3server, for the tests that read
# from a real one (make test-s3). It is a module of its own, so that nothing of it is
# part of mochi. Needs the Go module proxy the first time, and some minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
CGO_ENABLED=0 go -C tools/s3server build -trimpath -buildvcs=false -o "$PWD/bin/s3server" github.com/versity/versitygw/cmd/versitygw
