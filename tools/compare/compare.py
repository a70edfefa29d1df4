#!/usr/bin/python3
"""PyTorch and mochi side by side on this machine, in turns, as ratios.

    python3 tools/compare/compare.py step                          ResNet-50 and ResNet-18-CIFAR, whole step
    python3 tools/compare/compare.py loss                          MoCHi's and MoCo's loss alone
    python3 tools/compare/compare.py input --photos DIR --small DIR    decoding and augmentation
    python3 tools/compare/compare.py job --photos DIR              training from JPEG files

Needs `make build`, and Debian's python3-torch, python3-torchvision,
libopenblas0-openmp and libtcmalloc-minimal4. "Tuned" PyTorch has tcmalloc
preloaded and ATEN_CPU_CAPABILITY=avx512; "stock" is as installed. DIR holds
train/<class>/*.jpg. Each round measures every side once; the table gives
medians over rounds, and ratios as medians (and range) of the rounds' ratios.
--json FILE keeps everything measured. The PyTorch sides are programs of their
own: pytorch_step.py, pytorch_loss.py, pytorch_input.py, pytorch_job.py.
"""
import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile

from sides import Failed, Once, pytorch, take_turns

STEP_CASES = {
    "resnet50-bf16": dict(arch="resnet50", size=224, batch=32, group=32, queue=65536, mochi="1024,1024,128", precision="bf16"),
    "resnet50-fp32": dict(arch="resnet50", size=224, batch=32, group=32, queue=65536, mochi="1024,1024,128", precision="fp32"),
    "resnet18-cifar-bf16": dict(arch="resnet18-cifar", size=32, batch=512, group=64, queue=4096, mochi="256,256,32", precision="bf16"),
}
LOSS_CASES = {
    "b32": dict(batch=32, queue=65536, mochi="1024,1024,128"),
    "b256": dict(batch=256, queue=65536, mochi="1024,1024,128"),
    "b256-many-from-query": dict(batch=256, queue=65536, mochi="128,1024,512"),
}
INPUT_CASES = {
    "photos-224": dict(data="photos", recipe="moco-v2", size=224),
    "small-32": dict(data="small", recipe="cifar", size=32),
}


def step(args, case):
    """A whole training step on images in memory."""
    c = STEP_CASES[case]
    flags = ["--arch", c["arch"], "--image-size", str(c["size"]), "--batch", str(c["batch"]),
             "--queue", str(c["queue"]), "--mochi", c["mochi"], "--precision", c["precision"]]
    sides = pytorch("pytorch_step.py", args.threads, flags + ["--threads", str(args.threads)], args.iterations)
    sides["mochi"] = lambda: bench_step(args, flags, c["group"])
    title = f"{c['arch']}, {c['size']} px, batch {c['batch']}, K {c['queue']}, MoCHi ({c['mochi']}), {c['precision']}"
    return title, sides, ["images_per_s", "step_ms", "peak_rss_mb"], [("images_per_s", True)]


def bench_step(args, flags, group, name="mochi"):
    return Once(name, [args.mochi, "bench", "step", *flags, "--bn-group", str(group), "--engine", args.engine,
                       "--threads", str(args.threads), "--warmup", "2", "--steps", str(max(3, args.iterations)), "--json"],
                read=lambda r: {**r, "step_ms": r["step_ms_p50"]})


def loss(args, case):
    """Loss and gradient alone."""
    c = LOSS_CASES[case]
    flags = ["--batch", str(c["batch"]), "--queue", str(c["queue"]), "--dim", "128", "--mochi", c["mochi"], "--threads", str(args.threads)]
    n = 5 * args.iterations
    sides = pytorch("pytorch_loss.py", args.threads, flags, n)
    sides["mochi"] = lambda: Once("mochi", [args.mochi, "bench", "loss", *flags, "--engine", args.engine, "--iterations", str(n), "--json"],
                                  read=lambda r: {**r, "loss_ms": r["loss_ms_p50"], "moco_ms": r["moco_ms_p50"]})
    title = f"loss and gradient, B {c['batch']}, K {c['queue']}, d 128, MoCHi ({c['mochi']})"
    return title, sides, ["loss_ms", "moco_ms", "peak_rss_mb", "extra_mb"], [("loss_ms", False), ("moco_ms", False)]


def input(args, case):
    """Decoding and two views."""
    c = INPUT_CASES[case]
    data = getattr(args, c["data"])
    if not data:
        raise Failed(f"input {case}: --{c['data']} DIR is missing")
    flags = ["--data", data, "--recipe", c["recipe"], "--size", str(c["size"]), "--workers", str(args.workers), "--seconds", str(args.seconds)]
    sides = pytorch("pytorch_input.py", args.threads, flags)
    sides["mochi"] = lambda: Once("mochi", [args.mochi, "bench", "input", *flags, "--json"])
    title = f"two {c['recipe']} views of {c['size']} px from {data}, {args.workers} workers"
    return title, sides, ["images_per_s", "decode_only_images_per_s"], [("images_per_s", True)]


def job(args, case):
    """Training from JPEG files: input and step share the cores."""
    if not args.photos:
        raise Failed("job: --photos DIR is missing")
    c = STEP_CASES[case]
    flags = ["--arch", c["arch"], "--image-size", str(c["size"]), "--batch", str(c["batch"]),
             "--queue", str(c["queue"]), "--mochi", c["mochi"], "--precision", c["precision"]]
    sides = pytorch("pytorch_job.py", args.threads, flags + ["--data", args.photos, "--workers", str(args.workers),
                    "--threads", str(args.threads), "--iterations", str(2 * args.iterations)])
    sides["mochi train"] = lambda: Train(args, flags, c)
    sides["mochi bench step"] = lambda: bench_step(args, flags, c["group"], "mochi bench step")
    title = f"from JPEG files: {c['arch']}, {c['size']} px, batch {c['batch']}, K {c['queue']}, MoCHi ({c['mochi']}), {c['precision']}"
    return title, sides, ["images_per_s", "step_ms", "peak_rss_mb"], [("images_per_s", True)]


class Train:
    """mochi train for a few steps; the rate between two of its commits."""

    name = "mochi train"

    def __init__(self, args, flags, case):
        self.settle, self.steps = 6, 2 * args.iterations
        self.batch = case["batch"]
        self.command = [args.mochi, "train", "--data", args.photos, *flags, "--bn-group", str(case["group"]),
                        "--recipe", "moco-v2", "--mochi-warmup", "0", "--knn-every", "0", "--checkpoint-every", "0",
                        "--engine", args.engine, "--threads", str(args.threads), "--steps", str(self.settle + self.steps)]

    def turn(self):
        with tempfile.TemporaryDirectory() as out:
            done = subprocess.run([*self.command, "--out", os.path.join(out, "run")], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                raise Failed(f"{self.name}: {' '.join(self.command)}\n{done.stderr[-2000:]}")
            with open(os.path.join(out, "run", "log.jsonl")) as f:
                lines = [json.loads(line) for line in f]
        steps = [line for line in lines if "step_ms" in line]
        at = [datetime.datetime.fromisoformat(s["time"][:26].rstrip("Z")) for s in steps]
        seconds = (at[-1] - at[self.settle - 1]).total_seconds()
        n = len(steps) - self.settle
        names = sorted({p for s in steps for p in s.get("phases", {})})
        phases = {p: statistics.median(s["phases"].get(p, 0) for s in steps[self.settle:]) for p in names}
        return {"images_per_s": n * self.batch / seconds, "step_ms": seconds / n * 1e3, "phases": phases}

    def close(self):
        pass


TOPICS = {"step": (step, STEP_CASES), "loss": (loss, LOSS_CASES), "input": (input, INPUT_CASES), "job": (job, {"resnet50-bf16": None})}


def summarise(results, ratio_keys):
    """Medians of every number, and mochi's advantage over every other side:
    the median, smallest and largest ratio of a round."""
    medians = {side: {k: statistics.median(r[k] for r in rounds) for k, v in rounds[0].items()
                      if isinstance(v, (int, float)) and not isinstance(v, bool)} for side, rounds in results.items()}
    ours = next(side for side in results if side.startswith("mochi"))
    ratios = {}
    for other in results:
        if other == ours:
            continue
        for key, more_is_better in ratio_keys:
            each = [(a[key] / b[key]) ** (1 if more_is_better else -1) for a, b in zip(results[ours], results[other])]
            ratios.setdefault(other, {})[key] = dict(median=statistics.median(each), least=min(each), most=max(each))
    return medians, ratios


def table(medians, ratios, columns):
    rows = [["", *columns, *(f"mochi × ({k})" for k in next(iter(ratios.values()), {}))]]
    for side, m in medians.items():
        row = [side] + [f"{m[c]:.1f}" if c in m else "" for c in columns]
        for r in ratios.get(side, {}).values():
            row.append(f"{r['median']:.2f} ({r['least']:.2f}–{r['most']:.2f})")
        rows.append(row)
    rows = [r + [""] * (len(rows[0]) - len(r)) for r in rows]
    width = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(r, width))) for r in rows)


def machine(args):
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    version = subprocess.run([args.mochi, "version"], capture_output=True, text=True).stdout.strip()
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "mochi": version,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("topic", choices=TOPICS)
    p.add_argument("--case", action="append", help="one of the topic's cases (default all; may be repeated)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--iterations", type=int, default=3, help="steps a turn (loss: five times as many)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--workers", type=int, default=2, help="loader processes of PyTorch, threads of mochi bench input")
    p.add_argument("--seconds", type=float, default=5, help="length of an input measurement")
    p.add_argument("--photos", help="photos: train/<class>/*.jpg")
    p.add_argument("--small", help="small images, such as CIFAR-10 as JPEG")
    p.add_argument("--engine", default="auto")
    p.add_argument("--mochi", default=os.path.join(os.path.dirname(__file__), "..", "..", "bin", "mochi"))
    p.add_argument("--without-stock", action="store_true", help="leave stock PyTorch out")
    p.add_argument("--json", help="FILE for everything measured")
    args = p.parse_args()
    args.mochi = os.path.abspath(args.mochi)
    topic, cases = TOPICS[args.topic]
    unknown = set(args.case or []) - set(cases)
    if unknown:
        p.error(f"{args.topic} has the cases {', '.join(cases)}")
    report = {"topic": args.topic, "rounds": args.rounds, "threads": args.threads, "engine": args.engine, "machine": machine(args), "cases": []}
    try:
        for case in args.case or cases:
            title, sides, columns, ratio_keys = topic(args, case)
            if args.without_stock:
                del sides["PyTorch stock"]
            print(title, file=sys.stderr, flush=True)
            results = take_turns(sides, args.rounds)
            medians, ratios = summarise(results, ratio_keys)
            print(f"{title}; {args.threads} threads, medians of {args.rounds} rounds\n{table(medians, ratios, columns)}\n", flush=True)
            report["cases"].append({"case": case, "title": title, "medians": medians, "ratios": ratios, "rounds": results})
            if args.json:
                with open(args.json, "w") as f:
                    json.dump(report, f, indent=1)
    except Failed as failure:
        sys.exit(f"compare: {failure}")


if __name__ == "__main__":
    main()
