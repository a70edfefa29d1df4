#!/usr/bin/env python3
"""`mochi train --supervised` beside the same recipe in PyTorch: test accuracy, means over seeds.

    python3 tools/compare/supervised.py --data DIR [--arch resnet20] [--epochs 10] [--seeds 3]

Both: RandomResizedCrop (scale 0.08 to 1) and flip as mochi draws them (tools/linear-views
writes the views of each epoch to a pipe, in an order of its own), batch 128 as one
BatchNorm group, SGD with momentum 0.9, lr 0.1, weight decay 1e-4 on everything, cosine by
epoch, cross-entropy, last batch of an epoch filled (mochi) or left out (PyTorch). Each
begins with weights of its own. The test images are as they are.

DIR has train and val (or test) with a folder a class. Needs `make build`, `go build -o
bin/linear-views ./tools/linear-views`, and torch, torchvision and numpy.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

import numpy as np

from linear import ROOT, Views

BATCH, RATE, DECAY = 128, 0.1, 1e-4


def ours(o, seed):
    with tempfile.TemporaryDirectory() as tmp:
        run = os.path.join(tmp, "run")
        done = subprocess.run(
            [os.path.join(ROOT, "bin", "mochi"), "train", "--supervised", "--data", o.data, "--out", run, "--arch", o.arch,
             "--image-size", str(o.size), "--recipe", "crop-flip", "--batch", str(BATCH), "--bn-group", str(BATCH),
             "--lr", str(RATE), "--weight-decay", str(DECAY), "--epochs", str(o.epochs), "--seed", str(seed),
             "--label-smoothing", str(o.label_smoothing), "--checkpoint-every", "0"],
            capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr[-2000:])
        with open(os.path.join(run, "log.jsonl")) as f:
            found = [e for e in map(json.loads, f) if e.get("event") == "accuracy" and e["when"] == "after training"]
        return found[0]["top1"]


def theirs(o, seed):
    import torch
    from torch import nn

    sys.path.insert(0, os.path.join(ROOT, "tools", "fidelity"))
    from network import encoder

    torch.manual_seed(seed)
    views = Views(o.data, o.size, o.epochs, seed)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

    def scaled(pixels):
        return (pixels.float() / 255 - mean) / std

    test, test_labels = views.block(views.head["test"])
    net = encoder(o.arch, views.head["classes"], "linear")
    sgd = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY)
    loss_of = nn.CrossEntropyLoss(label_smoothing=o.label_smoothing)
    for epoch in range(o.epochs):
        for group in sgd.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * epoch / o.epochs))
        net.train()
        pixels, labels = views.block(views.head["train"])
        for first in range(0, len(labels) - BATCH + 1, BATCH):
            loss = loss_of(net(scaled(pixels[first:first + BATCH])), labels[first:first + BATCH])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    net.eval()
    with torch.no_grad():
        guesses = torch.cat([net(scaled(p)).argmax(1) for p in test.split(500)])
    return (guesses == test_labels).float().mean().item()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--arch", default="resnet20")
    p.add_argument("--size", type=int, default=32)
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--label-smoothing", type=float, default=0)
    o = p.parse_args()
    pairs = []
    for seed in range(1, o.seeds + 1):
        pairs.append((100 * ours(o, seed), 100 * theirs(o, seed)))
        print(f"seed {seed}: top-1 mochi {pairs[-1][0]:.2f} %, PyTorch {pairs[-1][1]:.2f} %", flush=True)
    a, b = np.array(pairs).T
    spread = f"; standard deviations {a.std(ddof=1):.2f} and {b.std(ddof=1):.2f}" if len(pairs) > 1 else ""
    print(f"means: mochi {a.mean():.2f} %, PyTorch {b.mean():.2f} %, difference {a.mean() - b.mean():+.2f} points{spread}")
    sys.exit(0 if abs(a.mean() - b.mean()) <= 1 else 1)


if __name__ == "__main__":
    main()
