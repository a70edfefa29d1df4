"""A short training beside a loop written here, with torchvision's transforms and PyTorch's draws."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms as T

import digits
import features
from network import encoder
from network import features as features_of

SEEDS = (1, 2, 3)
SETTINGS = {
    "arch": "resnet8", "head": "linear", "image_size": 16, "recipe": "cifar", "batch": 64, "bn_group": 16, "queue": 512, "dim": 32, "temperature": 0.1, "momentum": 0.99,
    "mochi": "64,64,16", "mochi_warmup": 1, "epochs": 5, "lr": 0.06, "weight_decay": 5e-4, "knn_every": 0, "checkpoint_every": 0,
}  # fmt: skip
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIEW = T.Compose([
    T.RandomResizedCrop(16), T.RandomHorizontalFlip(), T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), T.RandomGrayscale(0.2),
    T.ToTensor(), T.Normalize(MEAN, STD),
])  # fmt: skip
PLAIN = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)])


def synthetic(q, queue, n, s, s2):
    """MoCHi's points of each query, all of them built."""
    b = len(q)
    hard = queue[(q.detach() @ queue.T).topk(n, 1).indices]
    rows = torch.arange(b)[:, None]
    alpha, beta = torch.rand(b, s, 1), torch.rand(b, s2, 1) / 2
    pairs = alpha * hard[rows, torch.randint(n, (b, s))] + (1 - alpha) * hard[rows, torch.randint(n, (b, s))]
    mixed = beta * q.detach()[:, None] + (1 - beta) * hard[rows, torch.randint(n, (b, s2))]
    return F.normalize(torch.cat([pairs, mixed], 1), dim=2)


def loop(seed, train):
    """Trains as the settings say; the mean loss of each epoch, and the encoder."""
    torch.manual_seed(seed)
    s = SETTINGS
    n, points, with_query = (int(x) for x in s["mochi"].split(","))
    images = [Image.fromarray(i).convert("RGB") for i in train[0]]
    query, key = (encoder(s["arch"], s["dim"], s["head"]) for _ in range(2))
    key.load_state_dict(query.state_dict())
    optimizer = torch.optim.SGD(query.parameters(), s["lr"], momentum=0.9, weight_decay=s["weight_decay"])
    queue, at = F.normalize(torch.randn(s["queue"], s["dim"]), dim=1), 0
    b, group = s["batch"], s["bn_group"]
    epochs, total = s["epochs"], s["epochs"] * len(images)
    stream = torch.cat([torch.randperm(len(images)) for _ in range(epochs + 1)])
    losses = [[] for _ in range(epochs)]
    for step in range(math.ceil(total / b)):
        epoch = step * b // len(images)
        optimizer.param_groups[0]["lr"] = s["lr"] * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        batch = [images[i] for i in stream[step * b : (step + 1) * b]]
        x, y = (torch.stack([VIEW(i) for i in batch]) for _ in range(2))
        order = torch.randperm(b)
        with torch.no_grad():
            k = torch.empty(b, s["dim"])
            k[order] = torch.cat([F.normalize(key(part), dim=1) for part in y[order].split(group)])
        q = torch.cat([F.normalize(query(part), dim=1) for part in x.split(group)])
        logits = [(q * k).sum(1, keepdim=True), q @ queue.T]
        if epoch >= s["mochi_warmup"]:
            logits.append(torch.einsum("bd,bsd->bs", q, synthetic(q, queue, n, points, with_query)))
        loss = F.cross_entropy(torch.cat(logits, 1) / s["temperature"], torch.zeros(b, dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for pk, pq in zip(key.parameters(), query.parameters(), strict=True):
                pk.mul_(s["momentum"]).add_(pq, alpha=1 - s["momentum"])
        queue[(at + torch.arange(b)) % len(queue)] = k
        at += b
        losses[epoch].append(loss.item())
    return [np.mean(x) for x in losses], query


def measure(query, train, test):
    """kNN of embeddings, uniformity, and alignment of two fresh views."""
    rows = [
        features_of(query, torch.stack([PLAIN(Image.fromarray(i).convert("RGB")) for i in split[0]]).numpy())[1] for split in (train, test)
    ]
    torch.manual_seed(99)
    views = [torch.stack([VIEW(Image.fromarray(i).convert("RGB")) for i in test[0]]).numpy() for _ in range(2)]
    x, y = (features_of(query, v)[1] for v in views)
    return {
        "knn": features.accuracies(features.neighbours(rows[0], train[1], rows[1], 200, 0.1), test[1])[0],
        "alignment": features.alignment(x, y),
        "uniformity": (features.uniformity(x) + features.uniformity(y)) / 2,
    }


def checked(mochi, report):
    report.begin("A short training beside a loop of PyTorch, three seeds each")
    data = digits.write(mochi.work / "training-data")
    train, test = digits.images()
    ours, theirs = {}, {}
    for seed in SEEDS:
        run = mochi.train(f"training-{seed}", data, seed=seed, threads=1, **SETTINGS)
        losses = [[] for _ in range(SETTINGS["epochs"])]
        for line in run.steps().values():
            losses[line["epoch"]].append(line["loss"])
        checkpoint = run.path / "checkpoints" / "latest.safetensors"
        knn = mochi.json("eval", "knn", "--checkpoint", checkpoint, "--data", data, "--feature", "embedding")
        geometry = mochi.json("eval", "geometry", "--checkpoint", checkpoint, "--data", data, "--images", 0)
        collect(
            ours,
            [np.mean(x) for x in losses],
            {"knn": knn["knn_top1"], "alignment": geometry["alignment"], "uniformity": geometry["uniformity"]},
        )
        curve, query = loop(seed, train)
        collect(theirs, curve, measure(query, train, test))
    rates = {line["epoch"]: line["lr"] for line in run.steps().values()}
    off = max(abs(lr / SETTINGS["lr"] - (1 + math.cos(math.pi * e / SETTINGS["epochs"])) / 2) for e, lr in rates.items())
    report.below("learning rates in the log, by epoch, relative to the base", off, 1e-12)
    floor = {"knn": 0.01, "alignment": 0.02, "uniformity": 0.05}
    for name, values in ours.items():
        a, b = np.array(values), np.array(theirs[name])
        allowed = 4 * np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(SEEDS)) + floor.get(name, 0.02)
        report.add(
            f"{name}: mochi {a.mean():.3f}, PyTorch {b.mean():.3f}: difference",
            f"{a.mean() - b.mean():+.3f}",
            f"±{allowed:.3f}",
            abs(a.mean() - b.mean()) <= allowed,
        )
    features.of_a_run(mochi, report, checkpoint, data, SETTINGS)


def collect(into, losses, figures):
    for epoch, loss in enumerate(losses):
        into.setdefault(f"loss of epoch {epoch + 1}", []).append(loss)
    for name, value in figures.items():
        into.setdefault(name, []).append(value)
