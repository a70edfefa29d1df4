#!/usr/bin/python3
"""torch.distributed's all-reduce over Gloo, processes of this machine.

    python3 pytorch_allreduce.py --world 2 --bytes 112000000 --iterations 7

Prints one JSON line: p50_ms and p99_ms of the slowest rank, algbw_gbs, busbw_gbs
(algbw · 2(P−1)/P, as in mochi bench allreduce), cpu_s_per_gb over all ranks. Every sum is
checked. Each rank has its share of the cores.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from worker import start_torch

WARMUP = 2


def cpu():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime


def rank(args):
    torch = start_torch(max(1, os.cpu_count() // args.world))
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{args.rendezvous}", rank=args.rank, world_size=args.world)
    data = torch.empty(args.bytes // 4)
    pattern = (torch.arange(args.bytes // 4) % 4 + 1).float()
    total = sum(r % 8 + 1 for r in range(args.world))
    seconds, used = [], 0.0
    for i in range(WARMUP + args.iterations):
        torch.mul(pattern, float(args.rank % 8 + 1), out=data)
        dist.barrier()
        before, start = cpu(), time.perf_counter()
        dist.all_reduce(data)
        took = time.perf_counter() - start
        dist.barrier()
        used += cpu() - before if i >= WARMUP else 0
        if not torch.equal(data, pattern * total):
            raise SystemExit("a sum is wrong")
        if i >= WARMUP:
            seconds.append(took)
    print(json.dumps({"seconds": seconds, "cpu_s": used}), flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--world", type=int, default=2)
    p.add_argument("--bytes", type=int, default=112_000_000)
    p.add_argument("--iterations", type=int, default=7)
    p.add_argument("--rank", type=int, default=-1, help=argparse.SUPPRESS)
    p.add_argument("--rendezvous", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.rank >= 0:
        return rank(args)
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": str(max(1, os.cpu_count() // args.world))}
        ranks = [subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--rank", str(r), "--rendezvous", os.path.join(folder, "meet")],
                                  env=env, stdout=subprocess.PIPE, text=True) for r in range(args.world)]
        outputs = [r.communicate()[0] for r in ranks]
    if any(r.returncode for r in ranks):
        sys.exit("a rank failed")
    results = [json.loads(o.strip().splitlines()[-1]) for o in outputs]
    slowest = sorted(map(max, zip(*(r["seconds"] for r in results))))
    p50, p99 = statistics.median(slowest), slowest[-1 if len(slowest) < 100 else int(len(slowest) * 0.99)]
    gigabytes = args.bytes / 1e9
    print(json.dumps({
        "p50_ms": p50 * 1e3, "p99_ms": p99 * 1e3, "algbw_gbs": gigabytes / p50,
        "busbw_gbs": gigabytes / p50 * 2 * (args.world - 1) / args.world,
        "cpu_s_per_gb": sum(r["cpu_s"] for r in results) / args.iterations / gigabytes,
    }))


if __name__ == "__main__":
    main()
