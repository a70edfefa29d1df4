#!/usr/bin/python3
"""The ring all-reduce of mochi, lane by lane, beside PyTorch's over Gloo, in turns.

    python3 tools/compare/allreduce.py --rounds 5

Needs `make build`, and a Python with torch (--python; 2.15 was compared with). Each side
runs in processes of this machine, one a rank, over its loopback; all move a vector of
--bytes, and check every sum. bf16 is mochi's format on the wire, the vector is fp32 in both.
The table has medians over rounds (bus GB/s, ms of the median and of the 99th percentile,
CPU-seconds by GB, objects allocated), and the median and range of the rounds' ratios to
Gloo. --json FILE keeps everything.
"""
import argparse
import json
import os
import statistics
import sys

from sides import HERE, Failed, Once, take_turns

COLUMNS = ["busbw_gbs", "p50_ms", "p99_ms", "cpu_s_per_gb", "allocs_per_allreduce"]


def sides(args, world):
    flags = ["--world", str(world), "--bytes", str(args.bytes), "--iterations", str(args.iterations)]
    all = {"Gloo": lambda: Once("Gloo", [args.python, os.path.join(HERE, "pytorch_allreduce.py"), *flags])}
    for lane in args.lanes.split(","):
        for wire in ("fp32", "bf16"):
            name = f"{lane} {wire}"
            command = [args.mochi, "bench", "allreduce", *flags, "--transport", "nats", "--processes", "--lane", lane, "--wire", wire,
                       "--security", args.security, "--json"]
            all[name] = lambda name=name, command=command: Once(name, command)
    return all


def report(world, results):
    print(f"P = {world}; medians of {len(results['Gloo'])} rounds")
    print("".join(["".ljust(14), *(c.rjust(22) for c in COLUMNS), "× Gloo".rjust(22), "× raw TCP".rjust(22)]))
    for name, rounds in results.items():
        row = [name.ljust(14)] + [f"{statistics.median(r[c] for r in rounds):.3g}".rjust(22) if c in rounds[0] else "".rjust(22) for c in COLUMNS]
        beside = [r["busbw_gbs"] / g["busbw_gbs"] for r, g in zip(rounds, results["Gloo"])]
        row.append(spread(beside))
        if "raw_tcp_busbw_gbs" in rounds[0]:
            row.append(spread([r["busbw_gbs"] / r["raw_tcp_busbw_gbs"] for r in rounds]))
        print("".join(row))
    raw = [r["raw_tcp_busbw_gbs"] for name, rounds in results.items() if name.endswith("fp32") for r in rounds]
    print(f"plain TCP, fp32: {statistics.median(raw):.3g} GB/s ({min(raw):.3g}–{max(raw):.3g})\n", flush=True)


def spread(ratios):
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})".rjust(22)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--worlds", default="2,4")
    p.add_argument("--lanes", default="nats,direct")
    p.add_argument("--security", default="none", choices=["none", "plain", "tls"], help="of mochi's ring: checksums, frames that are authenticated, TLS")
    p.add_argument("--bytes", type=int, default=112_000_000)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--iterations", type=int, default=7)
    p.add_argument("--python", default=sys.executable, help="one that has torch")
    p.add_argument("--mochi", default=os.path.join(HERE, "..", "..", "bin", "mochi"))
    p.add_argument("--json", help="FILE for everything measured")
    args = p.parse_args()
    everything = {}
    try:
        for world in map(int, args.worlds.split(",")):
            everything[world] = take_turns(sides(args, world), args.rounds)
            report(world, everything[world])
            if args.json:
                with open(args.json, "w") as f:
                    json.dump(everything, f, indent=1)
    except Failed as failure:
        sys.exit(f"compare: {failure}")


if __name__ == "__main__":
    main()
