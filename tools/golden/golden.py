#!/usr/bin/python3
"""Golden values for package model: ten training steps of MoCHi in PyTorch.

An implementation of its own: the blocks are torchvision's, every synthetic
negative is built, gradients come from autograd. It computes in float64 and
checks itself in float32. Written with torch 1.13 and torchvision 0.14:

    python3 tools/golden/golden.py model/testdata/golden.safetensors

The file (safetensors layout) holds the settings as metadata, the inputs
(initial parameters, queue, images as bytes with value (byte - 128)/64,
sample indices, ShuffleBN permutations, draws by rank) and the results.
"""
import json
import struct
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torchvision.models.resnet import BasicBlock

STEPS, WARMUP = 10, 2  # no synthetic negatives in the first two steps
BATCH, GROUP = 16, 8
SIZE, WIDTH, DIM = 12, 4, 8
K, N, S, S2 = 43, 10, 17, 12  # K is no multiple of the batch; s, s' > N
TAU, M = 0.2, 0.9
LR, MU, WD = 0.06, 0.9, 1e-3


class Encoder(nn.Module):
    """resnet8: 3x3 stem, one basic block a stage, MLP head."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        for i in range(3):
            cin, cout, stride = WIDTH << max(i - 1, 0), WIDTH << i, 1 if i == 0 else 2
            down = None
            if i > 0:
                down = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))
            setattr(self, f"layer{i + 1}", nn.Sequential(BasicBlock(cin, cout, stride, down)))
        feature = WIDTH << 2
        self.fc = nn.Sequential(nn.Linear(feature, feature), nn.ReLU(), nn.Linear(feature, DIM))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # the running statistics are those of the last batch

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return F.normalize(self.fc(x.mean((2, 3))), dim=1)


def statistics(net):
    return {n: b.clone() for n, b in net.named_buffers() if "running" in n}


def mean_statistics(groups):
    return {n: sum(g[n] for g in groups) / len(groups) for n in groups[0]}


def group_loss(q, k, queue, draws):
    """Sum over the group of -log softmax, and the numbers of queries whose key
    outranks the real, and all, negatives."""
    total, proxy, proxy_hard = 0.0, 0, 0
    for b in range(len(q)):
        negatives = [queue]
        if draws is not None:
            similarity = queue @ q[b].detach()
            hard = queue[torch.argsort(similarity, descending=True)[:N]]
            first, second, alpha, partner, beta = [d[b] for d in draws]
            h = alpha[:, None] * hard[first] + (1 - alpha[:, None]) * hard[second]
            h2 = beta[:, None] * q[b].detach() + (1 - beta[:, None]) * hard[partner]
            negatives += [F.normalize(h, dim=1), F.normalize(h2, dim=1)]
        logits = torch.cat([(q[b] * k[b]).sum()[None], torch.cat(negatives) @ q[b]]) / TAU
        total = total + F.cross_entropy(logits[None], torch.zeros(1, dtype=torch.long), reduction="sum")
        proxy += int(logits[0] > logits[1:K + 1].max())
        proxy_hard += int(logits[0] > logits[1:].max())
    return total, proxy, proxy_hard


def train(inputs, dtype):
    torch.manual_seed(20)
    query, key = Encoder(), Encoder()
    key.load_state_dict(query.state_dict())
    initial = {n: p.detach().clone() for n, p in query.named_parameters()}
    query, key = query.to(dtype).train(), key.to(dtype).train()
    running = {"q": statistics(query), "k": statistics(key)}
    optimizer = torch.optim.SGD(query.parameters(), LR, momentum=MU, weight_decay=WD)
    queue, pointer = torch.from_numpy(inputs["queue"]).to(dtype), 0
    to = lambda a: torch.from_numpy(a).to(dtype)
    losses, proxies = [], []
    for t in range(STEPS):
        views_q, views_k = [(to(inputs[n][t]) - 128) / 64 for n in ("images_q", "images_k")]
        # Key encoder, on permuted groups.
        order = torch.from_numpy(inputs["shuffle"][t]).long()
        keys, stats_k = torch.empty(BATCH, DIM, dtype=dtype), []
        with torch.no_grad():
            for j in range(0, BATCH, GROUP):
                keys[order[j:j + GROUP]] = key(views_k[order[j:j + GROUP]])
                stats_k.append(statistics(key))
        # Query encoder, loss and gradient.
        optimizer.zero_grad()
        stats_q, loss, proxy = [], 0.0, [0, 0]
        for j in range(0, BATCH, GROUP):
            q = query(views_q[j:j + GROUP])
            stats_q.append(statistics(query))
            draws = None
            if t >= WARMUP:
                g = slice(j, j + GROUP)
                draws = (torch.from_numpy(inputs["first"][t, g]).long(), torch.from_numpy(inputs["second"][t, g]).long(),
                         to(inputs["alpha"][t, g]), torch.from_numpy(inputs["partner"][t, g]).long(), to(inputs["beta"][t, g]))
            one, best, best_all = group_loss(q, keys[j:j + GROUP], queue, draws)
            (one / BATCH).backward()
            loss += one.item() / BATCH
            proxy[0] += best
            proxy[1] += best_all
        losses.append(loss)
        proxies.append(proxy)
        # Commit: SGD, key encoder (parameters only), BN buffers, queue.
        optimizer.step()
        with torch.no_grad():
            for pq, pk in zip(query.parameters(), key.parameters()):
                pk.copy_(M * pk + (1 - M) * pq)
        for which, stats in (("q", stats_q), ("k", stats_k)):
            for n, mean in mean_statistics(stats).items():
                running[which][n] = 0.9 * running[which][n] + 0.1 * mean
        queue = queue.clone()
        for b in range(BATCH):
            queue[pointer] = keys[b]
            pointer = (pointer + 1) % K
    out = {"loss": np.array(losses), "proxy": np.array(proxies, np.int32), "queue": queue.numpy()}
    for n, p in initial.items():
        out["initial." + n] = p.numpy()
    for n, p in query.named_parameters():
        out["encoder_q." + n] = p.detach().numpy()
        out["momentum." + n] = optimizer.state[p]["momentum_buffer"].numpy()
    for n, p in key.named_parameters():
        out["encoder_k." + n] = p.detach().numpy()
    for which in "qk":
        for n, b in running[which].items():
            out[f"encoder_{which}.{n}"] = b.numpy()
    out["queue_ptr"] = np.array([pointer], np.int32)
    return out


def make_inputs():
    r = np.random.RandomState(7)
    queue = r.randn(K, DIM)
    queue /= np.linalg.norm(queue, axis=1, keepdims=True)
    samples = np.stack([r.permutation(100)[:BATCH] for _ in range(STEPS)]).astype(np.int32)
    # A sample is a colour gradient; a view is a shift of it with noise.
    base = r.uniform(60, 196, (100, 3, 1, 1)) + r.uniform(-4, 4, (100, 3, 1, 1)) * np.arange(SIZE) \
        + r.uniform(-4, 4, (100, 3, 1, 1)) * np.arange(SIZE)[:, None]
    def view():
        shape = (STEPS, BATCH, 3, SIZE, SIZE)
        return np.clip(base[samples] + r.uniform(-15, 15, (STEPS, BATCH, 3, 1, 1)) + 12 * r.randn(*shape), 0, 255).astype(np.uint8)
    return {
        "queue": queue.astype(np.float32), "samples": samples, "images_q": view(), "images_k": view(),
        "shuffle": np.stack([r.permutation(BATCH) for _ in range(STEPS)]).astype(np.int32),
        "first": r.randint(0, N, (STEPS, BATCH, S)).astype(np.int32),
        "second": r.randint(0, N, (STEPS, BATCH, S)).astype(np.int32),
        "alpha": r.uniform(0, 1, (STEPS, BATCH, S)).astype(np.float32),
        "partner": r.randint(0, N, (STEPS, BATCH, S2)).astype(np.int32),
        "beta": r.uniform(0, 0.5, (STEPS, BATCH, S2)).astype(np.float32),
    }


def write_safetensors(path, tensors, metadata):
    names = {"float32": "F32", "float64": "F64", "int32": "I32", "uint8": "U8"}
    header, at, data = {"__metadata__": metadata}, 0, b""
    for name, a in sorted(tensors.items()):
        raw = np.ascontiguousarray(a).tobytes()
        header[name] = {"dtype": names[a.dtype.name], "shape": list(a.shape), "data_offsets": [at, at + len(raw)]}
        data, at = data + raw, at + len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main():
    torch.set_num_threads(1)
    inputs = make_inputs()
    exact, single = train(inputs, torch.float64), train(inputs, torch.float32)
    print("loss", np.round(exact["loss"], 4), "proxy", exact["proxy"].tolist())
    worst = max((np.abs(exact[n] - single[n]).max() / np.abs(exact[n]).max(), n)
                for n in exact if n != "queue_ptr" and not n.startswith("initial."))
    print("float32 against float64: worst relative difference %.1e (%s)" % worst)
    assert worst[0] < 3e-4, "too sensitive to rounding to be a golden value"
    tensors = {"input." + n: a for n, a in inputs.items()}
    for n, a in exact.items():
        tensors[n] = a if n in ("loss", "proxy", "queue_ptr") else a.astype(np.float32)
    settings = dict(steps=STEPS, warmup=WARMUP, batch=BATCH, group=GROUP, size=SIZE, width=WIDTH, dim=DIM,
                    k=K, n=N, s=S, s2=S2, tau=TAU, m=M, lr=LR, mu=MU, wd=WD)
    write_safetensors(sys.argv[1], tensors, {"settings": json.dumps(settings), "torch": torch.__version__})


if __name__ == "__main__":
    main()
