"""The order of samples, ShuffleBN's permutations, and the learning rate."""

import numpy as np
import torch

import stats


def checked(mochi, report):
    report.begin("Order of samples, ShuffleBN, schedules")
    samples(mochi, report)
    shuffles(mochi, report)
    schedules(mochi, report)


def samples(mochi, report):
    wrong, sampled = 0, 0
    for n, batch in ((1000, 64), (97, 32), (50, 128)):
        epochs = 12
        steps = epochs * n // batch
        d = mochi.show("order", Samples=n, Batch=batch, Steps=steps, Seed=3)
        stream, epoch = d["samples"].ravel(), d["epochs"].ravel()
        whole = len(stream) // n
        wrong += int((epoch != np.arange(len(stream)) // n).sum())
        wrong += sum(sorted(stream[e * n : (e + 1) * n]) != list(range(n)) for e in range(whole))
        sampled += len(stream)
    report.none("epochs in which not every sample comes once, or a batch counted to another epoch", wrong, sampled)
    n = 500
    d = mochi.show("order", Samples=n, Batch=n, Steps=200, Seed=3)
    positions = np.argsort(d["samples"], axis=1)
    report.above(
        "where a sample comes in an epoch: uniform, p",
        stats.equally_often(np.bincount((positions[:, :40] * 20 // n).ravel(), minlength=20)),
        1e-4,
    )
    report.below(
        "… independent of the epoch before, rank correlation × √n",
        stats.largest_correlation(positions[:-1].reshape(-1, 1), positions[1:].reshape(-1, 1)),
        5,
    )


def shuffles(mochi, report):
    batch, group, steps = 256, 32, 2000
    d = mochi.show("order", Samples=1 << 15, Batch=batch, Steps=steps, Seed=4)
    shuffle = d["shuffles"]
    report.none("ShuffleBN: not a permutation of the batch", int((np.sort(shuffle, axis=1) != np.arange(batch)).any(1).sum()), steps)
    cells = np.bincount((np.tile(np.arange(batch) // group, steps) * (batch // group) + shuffle.ravel() // group), minlength=64)
    report.above("ShuffleBN: a sample's key group is independent of its query group, p", stats.equally_often(cells), 1e-4)
    # Two samples that share a query group share a key group by chance: (g−1)/(B−1).
    to = np.empty_like(shuffle)
    np.put_along_axis(to, shuffle, np.arange(batch)[None], 1)
    together = (to[:, ::2] // group == to[:, 1::2] // group).sum()
    report.below(
        "ShuffleBN: neighbours of a query group that stay together, standard errors off",
        stats.share(together, steps * batch // 2, (group - 1) / (batch - 1)),
        4,
    )
    report.none("ShuffleBN: steps whose permutation is that of the step before", int((shuffle[1:] == shuffle[:-1]).all(1).sum()), steps - 1)


def reference_rates(name, base, epochs, warmup):
    """The rate of every epoch after the warm-up, by PyTorch's schedulers, stepped once an epoch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    length = epochs - warmup
    if name == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=length)
    else:
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[length * 3 // 5, length * 4 // 5], gamma=0.1)
    rates = []
    for _ in range(length):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def schedules(mochi, report):
    for name, base, epochs, warmup in (("cosine", 0.03, 200, 0), ("cosine", 0.06, 100, 10), ("step", 0.03, 200, 0), ("step", 0.3, 100, 0)):
        inside = np.linspace(0, 0.999, 7)  # a rate is constant inside an epoch
        at = (np.arange(epochs)[:, None] + inside).ravel()
        rates = mochi.show("rates", Name=name, Base=base, Epochs=epochs, Warmup=warmup, At=at.tolist())["rates"].reshape(epochs, -1)
        want = np.repeat(reference_rates(name, base, epochs, warmup)[:, None], len(inside), 1)
        if warmup:
            want = np.concatenate([base * (np.arange(warmup)[:, None] + inside) / warmup, want])
        report.below(
            f"{name}, {epochs} epochs, warm-up {warmup}: learning rate, largest difference relative to the base",
            np.abs(rates - want).max() / base,
            1e-12,
        )
