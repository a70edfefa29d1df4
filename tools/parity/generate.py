#!/usr/bin/python3
"""Golden values of whole networks, from PyTorch: what cmd/mochi's parity test
compares an engine with.

    python3 tools/parity/generate.py DIR
    MOCHI_PARITY=DIR MOCHI_PARITY_ENGINE=onednn go test -tags onednn -run Parity -v ./cmd/mochi

A file a network (safetensors layout): torchvision's initial weights, and for
each of PASSES batches the images and a cotangent u; for the first, PyTorch's
fp32 embeddings, batch statistics and gradients of sum(embeddings * u). The
metadata holds the yardstick of an engine's bf16: for each of these tensors the
cosine of PyTorch's own bf16 (autocast) with its fp32, as the mean over the
batches. One batch would say little: with the images moved by 1e-3, PyTorch's
own figure for a tensor of ResNet-50 moves by 0.005 (median) to 0.05. The first
batch's stands beside it ("bf16_first").
resnet18-cifar-steps holds ten training steps of MoCo, losses in fp32 and bf16.

Images are smooth shapes, not noise, and the last BatchNorm weight of every
block starts at 0.2 instead of 1: otherwise a randomly initialised deep network
in bf16 is chaotic in any framework (PyTorch's own worst cosine was 0.002 in
ResNet-50), and a comparison says nothing. Ten steps start at torchvision's own
values, with the CIFAR-10 recipe's learning rate scaled to the batch (at 0.06, two fp32
implementations are 4e-3 apart after seven steps). Everything is seeded. Takes about five minutes and 1.1 GB.
"""
import argparse
import json
import os
import struct

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from torchvision.models.resnet import BasicBlock, Bottleneck

NETWORKS = {
    "resnet18": dict(size=224, dim=128, head="mlp", batch=16),
    "resnet34": dict(size=224, dim=128, head="mlp", batch=16),
    "resnet50": dict(size=224, dim=128, head="mlp", batch=16),
    "resnet18-cifar": dict(size=32, dim=128, head="linear", batch=64),
}
PASSES = 12
STEPS = dict(steps=10, batch=64, k=512, tau=0.1, m=0.99, lr=0.06 * 64 / 512, mu=0.9, wd=5e-4)


def encoder(arch, dim, head, **_):
    net = getattr(torchvision.models, arch.removesuffix("-cifar"))()
    width = net.fc.in_features
    if arch.endswith("-cifar"):
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.fc = nn.Linear(width, dim) if head == "linear" else nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
    return net.to(memory_format=torch.channels_last).train()


def images(rng, n, size):
    """Coloured waves and discs, a picture each; about zero mean, unit variance."""
    y, x = np.mgrid[0:size, 0:size] / size
    out = np.zeros((n, 3, size, size))
    for i in range(n):
        for _ in range(6):
            f, phase = rng.uniform(-5, 5, 2), rng.uniform(0, 2 * np.pi)
            out[i] += rng.normal(0, 0.5, (3, 1, 1)) * np.cos(2 * np.pi * (f[0] * x + f[1] * y) + phase)
        for _ in range(4):
            cx, cy, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.35)
            out[i] += rng.normal(0, 1, (3, 1, 1)) * (np.hypot(x - cx, y - cy) < r)
    return ((out - out.mean()) / out.std()).astype(np.float32)


def channels_last(a):
    return torch.from_numpy(a).to(memory_format=torch.channels_last)


def embed(net, views, bf16):
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = net(views)
    return F.normalize(out.float(), dim=1)


def one_pass(net, views, u, bf16):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # running statistics are this batch's
    net.zero_grad(set_to_none=True)
    e = embed(net, views, bf16)
    (e * u).sum().backward()
    got = {"embedding": e.detach().numpy()}
    got.update(("grad." + n, p.grad.numpy().copy()) for n, p in net.named_parameters())
    got.update(("stat." + n, b.numpy().copy()) for n, b in net.named_buffers() if "running" in n)
    return got


def cosine(a, b):
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-300))


def whole_network(arch):
    spec = NETWORKS[arch]
    torch.manual_seed(4)
    rng = np.random.RandomState(5)
    net = encoder(arch, **spec)
    for block in net.modules():
        if isinstance(block, (BasicBlock, Bottleneck)):
            nn.init.constant_((block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight, 0.2)
    tensors = {"param." + n: p.detach().numpy().copy() for n, p in net.named_parameters()}
    views = images(rng, PASSES * spec["batch"], spec["size"]).reshape(PASSES, spec["batch"], 3, spec["size"], spec["size"])
    u = rng.randn(PASSES, spec["batch"], spec["dim"]).astype(np.float32)
    first, passes = None, []
    for x, y in zip(views, u):
        exact, rough = (one_pass(net, channels_last(x), torch.from_numpy(y), bf16) for bf16 in (False, True))
        first = first or exact
        passes.append({n: cosine(exact[n], rough[n]) for n in exact})
    bf16 = {n: float(np.mean([p[n] for p in passes])) for n in first}
    mean = np.mean([c for n, c in bf16.items() if n.startswith("grad.")])
    worst = min(bf16, key=bf16.get)
    print(f"{arch}: PyTorch's bf16 against its fp32: embeddings {bf16['embedding']:.5f}, gradients {mean:.4f}, worst {bf16[worst]:.4f} ({worst})", flush=True)
    return {**tensors, **first, "images": views, "u": u}, {"arch": arch, **spec, "passes": PASSES, "bf16": bf16, "bf16_first": passes[0]}


def ten_steps():
    s = STEPS
    rng = np.random.RandomState(6)
    base = images(rng, 200, 32)
    queue = rng.randn(s["k"], 128)
    queue = (queue / np.linalg.norm(queue, axis=1, keepdims=True)).astype(np.float32)
    chosen = np.stack([rng.permutation(len(base))[:s["batch"]] for _ in range(s["steps"])])

    def view(scale=0.3):  # the same picture, rolled, in other colours, with some noise
        out = np.empty((s["steps"], s["batch"], 3, 32, 32), np.float32)
        for t, b in np.ndindex(*chosen.shape):
            p = np.roll(base[chosen[t, b]], rng.randint(-6, 7, 2), (1, 2))
            out[t, b] = p * rng.uniform(0.7, 1.3, (3, 1, 1)) + scale * rng.randn(3, 1, 1) + 0.1 * rng.randn(3, 32, 32)
        return out

    views_q, views_k = view(), view()
    losses = {}
    for bf16 in (False, True):
        torch.manual_seed(7)
        query, key = (encoder("resnet18-cifar", 128, "linear") for _ in range(2))
        key.load_state_dict(query.state_dict())
        initial = {"param." + n: p.detach().numpy().copy() for n, p in query.named_parameters()}
        sgd = torch.optim.SGD(query.parameters(), s["lr"], momentum=s["mu"], weight_decay=s["wd"])
        negatives, losses[bf16] = torch.from_numpy(queue.copy()), []
        for t in range(s["steps"]):
            with torch.no_grad():
                k = embed(key, channels_last(views_k[t]), bf16)
            q = embed(query, channels_last(views_q[t]), bf16)
            logits = torch.cat([(q * k).sum(1, keepdim=True), q @ negatives.t()], 1) / s["tau"]
            loss = F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            with torch.no_grad():
                for pk, pq in zip(key.parameters(), query.parameters()):
                    pk.mul_(s["m"]).add_(pq, alpha=1 - s["m"])
                slots = (t * s["batch"] + torch.arange(s["batch"])) % s["k"]
                negatives[slots] = k
            losses[bf16].append(loss.item())
    print("ten steps: fp32", np.round(losses[False], 4), "bf16 differs by up to",
          round(max(abs(a - b) for a, b in zip(losses[False], losses[True])), 4), flush=True)
    tensors = {**initial, "queue": queue, "images_q": views_q, "images_k": views_k}
    return tensors, {**s, "loss_fp32": losses[False], "loss_bf16": losses[True]}


def write(path, tensors, settings):
    """safetensors layout: length, JSON header, raw float32."""
    header, at = {"__metadata__": {"settings": json.dumps(settings), "torch": torch.__version__}}, 0
    for name, a in tensors.items():
        assert a.dtype == np.float32, name
        header[name] = {"dtype": "F32", "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for a in tensors.values():
            f.write(np.ascontiguousarray(a).tobytes())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir", help="folder to write")
    p.add_argument("--only", action="append", choices=[*NETWORKS, "steps"], help="only this file (may be repeated)")
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    os.makedirs(args.dir, exist_ok=True)
    for arch in args.only or NETWORKS:
        if arch in NETWORKS:
            write(os.path.join(args.dir, arch + ".safetensors"), *whole_network(arch))
    if "steps" in (args.only or ["steps"]):
        write(os.path.join(args.dir, "resnet18-cifar-steps.safetensors"), *ten_steps())


if __name__ == "__main__":
    main()
