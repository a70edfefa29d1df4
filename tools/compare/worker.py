"""What every PyTorch worker of the comparison has in common.

A worker is set up once and then measures on demand, so that the sides of a
comparison can take turns without paying for start and warm-up each time:

    serve(args, setup)      setup() returns (describe, measure)

prints `describe` as a JSON line when warm, then for each line N on stdin one
JSON line, measure(N). With --iterations N it measures once and ends: each
worker is a program of its own.
"""
import json
import os
import statistics
import sys
import time


def arguments(parser):
    parser.add_argument("--threads", type=int, default=2, help="compute threads")
    parser.add_argument("--iterations", type=int, default=0, help="measure once, print JSON, end")
    return parser.parse_args()


def say(value):
    print(json.dumps(value), flush=True)


def serve(args, setup):
    describe, measure = setup()
    if args.iterations:
        return say({**describe, **measure(args.iterations)})
    say(describe)
    for line in sys.stdin:
        say(measure(int(line)))


def start_torch(threads):
    """Imports torch, sets its threads, and checks that its products are right:
    some builds of OpenBLAS choose kernels that are wrong for the processor."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(64, 300), torch.randn(500, 300)
    worst = ((a @ b.t()).double() - a.double() @ b.double().t()).abs().max().item()
    if not worst < 1e-3:
        raise SystemExit(f"the BLAS that torch uses computes wrong products (off by {worst}); set OPENBLAS_CORETYPE")
    return torch


def blas():
    """Name of the BLAS in this process and the kernels it chose."""
    import ctypes

    try:
        lib = ctypes.CDLL("libblas.so.3")
        lib.openblas_get_corename.restype = ctypes.c_char_p
        return "OpenBLAS " + lib.openblas_get_corename().decode()
    except (OSError, AttributeError):
        return "reference BLAS (slow; install libopenblas0-openmp)"


def describe(torch):
    return {
        "torch": torch.__version__, "blas": blas(), "threads": torch.get_num_threads(),
        "capability": os.environ.get("ATEN_CPU_CAPABILITY", "default"),
        "allocator": "tcmalloc" if "tcmalloc" in os.environ.get("LD_PRELOAD", "") else "glibc",
    }


def times(step, n):
    """The times of n calls of step, ms."""
    ms = []
    for _ in range(n):
        start = time.perf_counter()
        step()
        ms.append((time.perf_counter() - start) * 1e3)
    return ms


def median(values):
    return statistics.median(values)


def peak_rss_mb():
    """Largest resident size of this process, MB: VmHWM, since getrusage's
    maximum is inherited from whoever started the process."""
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
