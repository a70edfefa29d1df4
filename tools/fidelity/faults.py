"""Puts known faults into a copy of this repository, one at a time, and shows that each makes the comparison fail.

    bash tools/fidelity/run.sh MOCHI TAGS --faults [--only-fault WORD]

A fault is a replacement of text that must occur exactly once: when the code has changed it says so, and the fault must be
put anew. Only the part that a fault concerns is run, and of the networks the smallest. It ends with 1 when a fault is not
found, or cannot be put.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BLEND = """\t\terr = m.state.Update(u)
\t\tif err == nil {
\t\t\tquery, key := m.state.Host(engine.QueryBuffers), m.state.Host(engine.KeyBuffers)
\t\t\tblended := make([]float32, len(key))
\t\t\tfor i := range key {
\t\t\t\tblended[i] = float32(m.cfg.Momentum)*key[i] + float32(1-m.cfg.Momentum)*query[i]
\t\t\t}
\t\t\tm.state.Set(engine.KeyBuffers, blended)
\t\t}
"""

# Name, part that must find it, file, what stands there, what is put in its place.
FAULTS = [
    (
        "the jitter's parts always in one order", "draws", "replica/augment/draw.go",
        "\t\trng.Shuffle(len(p.Order), func(i, j int) { p.Order[i], p.Order[j] = p.Order[j], p.Order[i] })\n", "",
    ),
    ("the blur's σ up to 2.1", "draws", "replica/augment/draw.go", "sigmaMax  = 2.0", "sigmaMax  = 2.1"),
    ("the key encoder's BatchNorm buffers follow the query encoder's", "steps", "model/moco.go", "\t\terr = m.state.Update(u)\n", BLEND),
    ("β up to 1", "mixing", "model/loss/pairs.go", "w.beta[t] = unit(rest) / 2", "w.beta[t] = unit(rest)"),
    (
        "the cosine falls step by step", "order", "model/optim/schedule.go",
        "return s.Base * 0.5 * (1 + math.Cos(math.Pi*float64(at)/float64(max(epochs, 1))))",
        "return s.Base * 0.5 * (1 + math.Cos(math.Pi*(max(0, min(epoch, float64(s.Epochs-1))-float64(s.Warmup))+0*float64(at))/float64(max(epochs, 1))))",
    ),
]  # fmt: skip


def copy_of_the_repository(to):
    """What git tracks, and what it would, as it lies here."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if os.path.isfile(name):
            path = Path(to, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(Path(name).read_bytes())


def put(folder, file, old, new):
    path = Path(folder, file)
    text = path.read_text()
    if text.count(old) != 1:
        sys.exit(f"{file}: the text to replace is there {text.count(old)} times, not once: put the fault anew\n{old}")
    path.write_text(text.replace(old, new))


def compared(folder, part, tags):
    """Builds what is in a folder and compares a part of it: the status, and the lines that were out."""
    for target, package in (("bin/mochi", "./cmd/mochi"), ("bin/fidelity", "./tools/fidelity")):
        subprocess.run(["go", "build", "-tags", tags, "-o", target, package], cwd=folder, check=True)
    run = [sys.executable, "tools/fidelity/run.py", "--mochi", "bin/mochi", "--shower", "bin/fidelity", "--only", part, "--quick"]
    done = subprocess.run(run, check=False, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "tools/fidelity"})
    out = [line.strip().removeprefix("OUT").strip() for line in done.stdout.splitlines() if line.startswith("  OUT")]
    return done.returncode, list(dict.fromkeys(" ".join(line.split()) for line in out)), done.stderr


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tags", default="", help="build tags")
    p.add_argument("--only-fault", default="", help="the faults whose names contain this")
    args = p.parse_args()
    missed = 0
    for name, part, file, old, new in FAULTS:
        if args.only_fault not in name:
            continue
        began = time.time()
        with tempfile.TemporaryDirectory(prefix="mochi-fault-") as folder:
            copy_of_the_repository(folder)
            put(folder, file, old, new)
            status, out, errors = compared(folder, part, args.tags)
        found = status == 1 and any("the comparison itself" not in line for line in out)
        missed += not found
        verdict = f"found by {out[0]}" if found else f"NOT FOUND (status {status}) {out} {errors[-500:]}"
        print(f"{name}: {verdict} ({time.time() - began:.0f} s)", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
