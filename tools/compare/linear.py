#!/usr/bin/env python3
"""`mochi eval linear` beside PyTorch and scikit-learn.

    python3 tools/compare/linear.py moco --checkpoint FILE --data DIR [--epochs 100] [--seeds 3]
    python3 tools/compare/linear.py lbfgs --checkpoint FILE --data DIR

moco: PyTorch's backbone in evaluation mode, nn.Linear and SGD as in main_lincls.py
of facebookresearch/moco, on the views that mochi draws, in the same order, from
weights of its own (tools/linear-views writes the views to a pipe). lbfgs: on the
features of `mochi embed`, scikit-learn's LogisticRegression with the penalty that
mochi has chosen.

FILE is a checkpoint of mochi; DIR has train and val (or test) with a folder a class.
Needs `make build`, `go build -o bin/linear-views ./tools/linear-views`, and torch, torchvision, numpy and scikit-learn.
"""
import argparse
import csv
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tools", "fidelity"))


def mochi(*args):
    done = subprocess.run([os.path.join(ROOT, "bin", "mochi"), *args, "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"mochi {' '.join(args)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def checkpoint(path):
    """The tensors of a checkpoint and its settings."""
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length))
        body = f.read()
    meta = header.pop("__metadata__")
    tensors = {}
    for name, t in header.items():
        if t["dtype"] == "F32":
            tensors[name] = np.frombuffer(body, np.float32, offset=t["data_offsets"][0], count=int(np.prod(t["shape"]))).reshape(t["shape"])
    settings = dict(line.split(": ", 1) for line in meta["config"].splitlines() if ": " in line)
    return tensors, {"arch": settings["arch"], "dim": int(settings["dim"]), "head": settings["head"], "size": int(settings["image-size"])}


def backbone(path):
    import torch
    from network import encoder

    tensors, settings = checkpoint(path)
    net = encoder(settings["arch"], settings["dim"], settings["head"])
    state = {k.removeprefix("encoder_q."): torch.from_numpy(v.copy()) for k, v in tensors.items() if k.startswith("encoder_q.")}
    missing, extra = net.load_state_dict(state, strict=False)
    missing = [m for m in missing if not m.endswith("num_batches_tracked")]
    if missing or extra:
        sys.exit(f"{path}: lacks {missing}, has {extra} besides")
    width = net.fc.in_features if hasattr(net.fc, "in_features") else net.fc[0].in_features
    net.fc = torch.nn.Identity()
    return net.eval().requires_grad_(False), width, settings["size"]


class Views:
    """The blocks that tools/linear-views writes."""

    def __init__(self, data, size, epochs, seed):
        self.process = subprocess.Popen(
            [os.path.join(ROOT, "bin", "linear-views"), "-data", data, "-size", str(size), "-epochs", str(epochs), "-seed", str(seed)],
            stdout=subprocess.PIPE)
        self.head = json.loads(self.process.stdout.readline())

    def block(self, n):
        import torch

        size = self.head["size"]
        labels = np.frombuffer(self.read(4 * n), "<i4").astype(np.int64)
        pixels = np.frombuffer(self.read(n * 3 * size * size), np.uint8).reshape(n, 3, size, size)
        return torch.from_numpy(pixels.copy()), torch.from_numpy(labels)

    def read(self, n):
        b = self.process.stdout.read(n)
        if len(b) != n:
            sys.exit("linear-views ended early")
        return b


def features(net, pixels):
    import torch

    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return torch.cat([net((p.float() / 255 - mean) / std) for p in pixels.split(100)])


def pytorch(path, data, epochs, seed):
    """main_lincls.py: fc.weight ~ N(0, 0.01), SGD 30, ×0.1 at 60 and 80 % of the epochs."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    net, width, size = backbone(path)
    views = Views(data, size, epochs, seed)
    test, test_labels = views.block(views.head["test"])
    test = features(net, test)
    fc = nn.Linear(width, views.head["classes"])
    nn.init.normal_(fc.weight, std=0.01)
    nn.init.zeros_(fc.bias)
    sgd = torch.optim.SGD(fc.parameters(), lr=30, momentum=0.9, weight_decay=0)
    best, top1 = 0, 0
    for epoch in range(epochs):
        for group in sgd.param_groups:
            group["lr"] = 30 * 0.1 ** sum(epoch >= m * epochs // 100 for m in (60, 80))
        pixels, labels = views.block(views.head["train"])
        x = features(net, pixels)
        for xb, yb in zip(x.split(256), labels.split(256)):
            loss = nn.functional.cross_entropy(fc(xb), yb)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        with torch.no_grad():
            top1 = (fc(test).argmax(1) == test_labels).float().mean().item()
        best = max(best, top1)
    return {"top1": top1, "top1_best": best}


def moco(o):
    gaps = []
    for seed in range(1, o.seeds + 1):
        ours = mochi("eval", "linear", "--checkpoint", o.checkpoint, "--data", o.data, "--protocol", "moco", "--epochs", str(o.epochs), "--seed", str(seed))
        theirs = pytorch(o.checkpoint, o.data, o.epochs, seed)
        gaps.append(100 * (ours["top1"] - theirs["top1"]))
        print(f"seed {seed}: top-1 mochi {100 * ours['top1']:.2f} %, PyTorch {100 * theirs['top1']:.2f} %; "
              f"best epoch {100 * ours['top1_best']:.2f} %, {100 * theirs['top1_best']:.2f} %; {ours['train']} and {ours['test']} images")
    print(f"mean difference {np.mean(gaps):+.2f} points")
    return abs(np.mean(gaps)) <= 0.3


def lbfgs(o):
    from sklearn.linear_model import LogisticRegression

    ours = mochi("eval", "linear", "--checkpoint", o.checkpoint, "--data", o.data, "--protocol", "lbfgs")
    with tempfile.TemporaryDirectory() as tmp:
        mochi("embed", "--checkpoint", o.checkpoint, "--data", o.data, "--out", os.path.join(tmp, "f.npy"))
        x = np.load(os.path.join(tmp, "f.npy")).astype(np.float64)
        with open(os.path.join(tmp, "f.csv"), newline="") as f:
            rows = list(csv.DictReader(f))
    train = np.array([r["split"] == "train" for r in rows])
    y = np.array([int(r["label"]) for r in rows])
    fit = LogisticRegression(C=1 / (train.sum() * ours["l2"]), max_iter=5000, tol=1e-6).fit(x[train], y[train])
    theirs = fit.score(x[~train], y[~train])
    print(f"top-1 mochi {100 * ours['top1']:.2f} %, scikit-learn {100 * theirs:.2f} % (l2 {ours['l2']:.3g}; {ours['train']} and {ours['test']} images, {x.shape[1]} values)")
    return abs(100 * (ours["top1"] - theirs)) <= 0.2


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["moco", "lbfgs"])
    p.add_argument("--checkpoint", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--epochs", type=int, default=100)
    p.add_argument("--seeds", type=int, default=3)
    o = p.parse_args()
    sys.exit(0 if {"moco": moco, "lbfgs": lbfgs}[o.what](o) else 1)


if __name__ == "__main__":
    main()
