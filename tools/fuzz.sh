#!/usr/bin/env bash
# Fuzzes every reader of files and messages for so long each (5s, 10m), two at a
# time: fuzz.sh TIME TAGS [FOLDER…]. Prints a line for each, and all that a failure
# says; what was found lies in testdata/fuzz of its package then. Kernels and the
# loss have fuzz tests too: with the folder ".", as make test-long has it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export FUZZ_TIME=$1 FUZZ_TAGS=$2
shift 2
[ $# -gt 0 ] || set -- allreduce coordinator replica model/exchange

# When the time is over go test may call that a failure, "context deadline exceeded",
# with nothing found (golang/go#75804): such a one is fuzzed again. Whatever was found
# is written down, and said.
no_find() { grep -qx ' *context deadline exceeded' <<<"$1" && ! grep -qE 'Failing input written|panic|_test\.go:' <<<"$1"; }

one() { # one FOLDER FUNCTION
  local out rc
  for _ in 1 2 3; do
    rc=0
    out=$(go test -tags "$FUZZ_TAGS" -run '^$' -fuzz "^$2\$" -fuzztime "$FUZZ_TIME" -fuzzminimizetime 100x -parallel 1 "./$1" 2>&1) || rc=$?
    if [ $rc -eq 0 ] || ! no_find "$out"; then break; fi
  done
  if [ $rc -ne 0 ]; then
    printf '%s\n' "$out"
    exit 255 # xargs stops
  fi
  printf '%s %s: %s\n' "$1" "$2" "$(grep '^fuzz: elapsed' <<<"$out" | tail -n 1)"
}
export -f one no_find

grep -rn --include='*_test.go' '^func Fuzz' "$@" |
  sed -nE 's|^(.*)/[^/:]*:[0-9]*:func (Fuzz[A-Za-z0-9]*)\(.*|\1 \2|p' |
  xargs -P 2 -L 1 bash -c 'one "$0" "$1"'
