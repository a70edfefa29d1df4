#!/usr/bin/env bash
# What make fidelity runs: an environment of Python for the comparisons, made once,
# and run.py in it. Needs Go, Python 3.10 or later with venv, and an index of Python
# packages. PyTorch's builds for processors alone are smaller than those that most
# indexes have:
#
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make fidelity
#
#   bash tools/fidelity/run.sh MOCHI TAGS [run.py's flags]
#   bash tools/fidelity/run.sh MOCHI TAGS --faults [flags of faults.py]
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tools/fidelity
mochi=$1 tags=$2
shift 2

home=${XDG_CACHE_HOME:-$HOME/.cache}/mochi/fidelity
wanted=$(cat $here/requirements.txt; python3 --version)
if [ "$(cat "$home/made" 2>/dev/null)" != "$wanted" ]; then
  echo "making an environment of Python in $home"
  rm -rf "$home"
  python3 -m venv "$home"
  "$home/bin/pip" install --quiet --disable-pip-version-check -r $here/requirements.txt
  printf '%s\n' "$wanted" >"$home/made" # the last thing, so that half an environment is made anew
fi

if [ "${1:-}" = --faults ]; then
  shift
  exec env PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 "$home/bin/python" $here/faults.py --tags "$tags" "$@"
fi
go build -tags "$tags" -o bin/fidelity ./tools/fidelity
# One core for each of two parts: threads that wait for each other lose where cores are few.
export OMP_NUM_THREADS=1 PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1
exec "$home/bin/python" $here/run.py --mochi "$mochi" --shower bin/fidelity "$@"
