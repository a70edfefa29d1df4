#!/usr/bin/env python3
"""Trains three steps on from `mochi export --format moco` in PyTorch, and by mochi.

    continue.py FOLDER MOCHI EXCHANGE_CHECK

FOLDER is written; MOCHI and EXCHANGE_CHECK are the two programs. A run of mochi stops
after 5 steps and is exported; mochi resumes it for 3 steps, and so does PyTorch, with
torch.optim.SGD's own load_state_dict and the same views: losses within 1e-4, and
parameters, running statistics, momentum and queue as near as float32 lets them be.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import torch
import torchvision
from PIL import Image

from exports import read_checkpoint, reference_layout

ARCH, SIZE, BATCH, K, DIM, MOMENTUM, TEMPERATURE = "resnet18-cifar", 32, 16, 48, 32, 0.9, 0.2


def run(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{args}: {done.stdout}{done.stderr}")


def main():
    folder, mochi, tool = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    images = folder / "photos"
    rng = np.random.default_rng(1)
    for i in range(64):  # four steps an epoch, so no step is of two epochs
        (images / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        smooth = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((48, 40), Image.BICUBIC)
        smooth.save(images / f"class{i % 2}" / f"{i}.png")
    out = folder / "run"
    train = [mochi, "train", "--data", images, "--out", out, "--arch", ARCH, "--head", "mlp", "--image-size", SIZE, "--recipe", "cifar"]
    train += ["--batch", BATCH, "--bn-group", BATCH, "--queue", K, "--dim", DIM, "--mochi", "0,0,0", "--momentum", MOMENTUM]
    train += ["--temperature", TEMPERATURE, "--lr", "0.03", "--epochs", 10, "--knn-every", 0, "--sample-log", "--audit", 0, "--seed", 5, "--keep", 9]
    run(*train, "--steps", 5)
    start = out / "checkpoints" / "step-00000005.safetensors"
    run(mochi, "export", start, "--format", "moco", "--out", folder / "moco.pth.tar")
    run(*train, "--steps", 8)
    run(tool, "-dir", folder, "-views", out, "-data", images)

    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = {line["step"]: line for line in lines if "loss" in line and "event" not in line}
    saved = torch.load(folder / "moco.pth.tar", weights_only=True)
    metadata, tensors = read_checkpoint(start)
    model = reference_layout(torchvision, metadata, tensors, ARCH)
    model.load_state_dict(saved["state_dict"])
    moco = model.module.train()
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.1, weight_decay=0.1)
    sgd.load_state_dict(saved["optimizer"])
    worst = 0.0
    for step in range(6, 9):
        sgd.param_groups[0]["lr"] = steps[step]["lr"]
        views = torch.from_numpy(np.load(folder / f"views-{step}.npy").reshape(2, BATCH, 3, SIZE, SIZE))
        q = torch.nn.functional.normalize(moco.encoder_q(views[0]))
        with torch.no_grad():
            k = torch.nn.functional.normalize(moco.encoder_k(views[1]))
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ moco.queue.clone()], 1) / TEMPERATURE
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.long))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        with torch.no_grad():
            for pq, pk in zip(moco.encoder_q.parameters(), moco.encoder_k.parameters()):
                pk.mul_(MOMENTUM).add_(pq, alpha=1 - MOMENTUM)
            at = int(moco.queue_ptr)
            moco.queue[:, at : at + BATCH] = k.T
            moco.queue_ptr[0] = (at + BATCH) % K
        off = abs(loss.item() - steps[step]["loss"]) / abs(steps[step]["loss"])
        worst = max(worst, off)
        print(f"step {step}: loss {loss.item():.6f} in PyTorch, {steps[step]['loss']:.6f} in mochi, relative {off:.1e}")
    _, after = read_checkpoint(out / "checkpoints" / "step-00000008.safetensors")
    state = {n.removeprefix("module."): v for n, v in model.state_dict().items()}
    names = [n for n, _ in moco.encoder_q.named_parameters()]
    parameters = list(moco.encoder_q.parameters())
    state |= {f"optimizer.momentum.{n}": sgd.state[p]["momentum_buffer"] for n, p in zip(names, parameters)}
    ok = worst < 1e-4
    for part, bound in (("encoder_q.", 2e-3), ("encoder_k.", 2e-3), ("optimizer.momentum.", 2e-2), ("queue", 1e-4)):
        # A ReLU whose input is 0 but for rounding lets a gradient pass or not. One of
        # them moves the gradients before it by some 1e-3 of their length, in PyTorch's
        # float32 against its float64 as well.
        off = {
            name: float(np.linalg.norm(np.asarray(state[name]) - want) / max(np.linalg.norm(want), 1e-12))
            for name, want in after.items()
            if name.startswith(part) and name != "queue_labels"
        }
        name = max(off, key=off.get)
        print(f"{part}: {len(off)} tensors after step 8, the farthest {name}: {off[name]:.1e} of its length")
        ok = ok and off[name] < bound
    print("ok" if ok else "FAIL")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
