#!/usr/bin/env bash
# Runs a packed gpucheck on a machine without a GPU: it must come to the point
# where a device is needed, say so in the right words, and leave both reports.
set -euo pipefail

if [ -e /proc/driver/nvidia/version ]; then
  echo "gpucheck: this machine has a driver; run check.py itself"
  exit 0
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
tar -C "$dir" -xzf "$1"

status=0
env -u MOCHI_CUDA_LIBRARIES python3 "$dir/gpucheck/check.py" --out "$dir/out" >"$dir/said" || status=$?
python3 - "$dir/out" "$status" "$(cat "$dir/said")" <<'PY'
import json, sys
out, status, said = sys.argv[1:]
parts = json.load(open(out + "/report.json"))["parts"]
device = parts["device"]
assert status == "1", "exit status " + status
assert device["status"] == "failed" and "no usable CUDA driver: cannot open libcuda.so.1" in device["error"], device
assert parts["machine"]["status"] == "passed" and "engines cuda" in parts["machine"]["mochi"], parts["machine"]
assert all(p["status"] == "not run" for n, p in parts.items() if n not in ("machine", "device")), parts
assert len(parts) == 15 and all("| %s |" % n in open(out + "/report.md").read() for n in parts), parts
assert "no GPU was used" in said, said
PY
echo "gpucheck: without a GPU it says so, and leaves its reports"
