"""Compares mochi with independent code, part by part, prints a table and ends with 1 when a line of it is out.

    bash tools/fidelity/run.sh [--only WORD] [--doc FILE]

Parts run two at a time (--jobs), each on one core.
"""

import argparse
import importlib
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

PARTS = {
    "views": "views.replayed",
    "draws": "views.drawn",
    "decoding": "views.decoded",
    "features": "features.measured",
    "steps": "steps.checked",
    "mixing": "mixing.checked",
    "order": "order.checked",
    "digests": "digests.checked",
    "training": "training.checked",
}
LONGEST = ["steps", "training", "views", "mixing", "draws", "digests", "order", "features", "decoding"]


def one(job):
    """Runs a part in a process of its own and returns its report."""
    name, binary, shower, work, quick = job
    import torch

    from mochi import Mochi
    from report import Report

    torch.set_num_threads(1)
    report = Report()
    module, function = PARTS[name].split(".")
    try:
        getattr(importlib.import_module(module), function)(Mochi(binary, shower, Path(work) / name, quick), report)
    except Exception as error:  # noqa: BLE001 - a part that cannot be compared is out, and the others go on
        import traceback

        traceback.print_exc()
        report.failure(name, error)
    report.end()
    return name, report


def libraries():
    import PIL
    import sklearn
    import torch
    import torchvision

    return (
        f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}, scikit-learn {sklearn.__version__}"
    )


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mochi", required=True, help="the program")
    p.add_argument("--shower", required=True, help="tools/fidelity, built")
    p.add_argument("--only", action="append", default=[], choices=PARTS, help="only this part (may be repeated)")
    p.add_argument("--quick", action="store_true", help="steps of the smallest network only")
    p.add_argument("--jobs", type=int, default=2, help="parts at a time, each on one core")
    p.add_argument("--doc", help="write the page about it to this file")
    p.add_argument("--commit", default="", help="which mochi it is, for the page")
    args = p.parse_args()
    from report import Report, markdown, processor

    report = Report()
    chosen = [name for name in LONGEST if not args.only or name in args.only]
    with tempfile.TemporaryDirectory(prefix="mochi-fidelity-") as work:
        jobs = [(name, os.path.abspath(args.mochi), os.path.abspath(args.shower), work, args.quick) for name in chosen]
        with multiprocessing.get_context("spawn").Pool(args.jobs, maxtasksperchild=1) as pool:
            done = dict(pool.imap_unordered(one, jobs, chunksize=1))
        version = os.popen(f"{args.mochi} version").read().strip()
    for name in PARTS:
        if name in done:
            report.rows += done[name].rows
            report.seconds.update(done[name].seconds)
            report.processor.update(done[name].processor)
    print()
    for part, seconds in report.seconds.items():
        print(f"{part}: {seconds:.0f} s, {report.processor[part]:.0f} s of a processor")
    out = report.out()
    print(f"\n{len(report.rows)} comparisons, {len(out)} out")
    for row in out:
        print(f"  OUT {row['part']}: {row['what']}: {row['figure']}, allowed {row['tolerance']}")
    if args.doc:
        about = {"mochi": args.commit or version, "libraries": libraries(), "machine": f"{processor()}, {os.cpu_count()} cores"}
        Path(args.doc).write_text(markdown(report, about))
        print("wrote", args.doc)
    sys.exit(1 if out or not report.rows else 0)


if __name__ == "__main__":
    main()
