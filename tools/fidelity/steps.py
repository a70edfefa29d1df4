"""One step of training, from checkpoint to checkpoint, with everything built as the papers write it."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F

import views
import yaml_lite
from network import Rectified, Statistics, embed, loaded, norms

NETWORKS = {
    "resnet8": {"image_size": 20, "head": "linear", "dim": 32, "batch": 64, "bn_group": 16},
    "resnet18-cifar": {"image_size": 16, "head": "linear", "dim": 128, "batch": 32, "bn_group": 16},
    "resnet50": {"image_size": 32, "head": "mlp", "dim": 128, "batch": 32, "bn_group": 16},
}
LOSSES = {"MoCo-v2": "0,0,0", "MoCHi (64,32,16)": "64,32,16", "MoCHi, class oracle": "64,32,16"}
STEP = 3  # the state that the step begins with: with momentum, and keys in the queue


def dataset(folder):
    """Images of five classes, of several sizes."""
    rng = np.random.default_rng(9)
    a, b = views.photos()

    def image(label):
        w, h = int(rng.integers(60, 140)), int(rng.integers(60, 140))
        x, y = int(rng.integers(0, a.width - w)), int(rng.integers(label * 40, label * 40 + 60))
        return (a, b)[label % 2].crop((x, y, x + w, y + h)), label

    return views.data_folder(folder, [image(i % 5) for i in range(300)], [image(i % 5) for i in range(50)])


def checked(mochi, report):
    report.begin("One step, from checkpoint to checkpoint, beside PyTorch in float64")
    data = dataset(mochi.work / "steps-data")
    for number, ((arch, net), (name, mix), optimizer) in enumerate(itertools.product(NETWORKS.items(), LOSSES.items(), ("sgd", "lars"))):
        if mochi.quick and arch != "resnet8":
            continue
        wraps = number % 2 == 0
        batch = net["batch"]
        settings = dict(
            arch=arch, **net, mochi=mix, optimizer=optimizer, queue=batch * 4 - (8 if wraps else 0),
            recipe="moco-v2" if arch == "resnet50" else "cifar", temperature=0.1, momentum=0.99, mochi_warmup=0, epochs=4,
            lr=0.06 if optimizer == "sgd" else 0.3, weight_decay=5e-4, knn_every=0, checkpoint_every=0, keep=9, seed=5 + number, threads=1,
        )  # fmt: skip
        if "oracle" in name:
            settings["oracle"] = True
        mochi.train(f"step-{number}", data, steps=STEP, **settings)
        run = mochi.train(f"step-{number}", data, steps=STEP + 1, **settings)
        label = f"{arch}, {name}, {optimizer.upper()}{', the queue wraps around' if wraps else ''}"
        one_step(mochi, report, run, data, label)


def one_step(mochi, report, run, data, label):
    before, metadata = run.checkpoint(STEP)
    after, _ = run.checkpoint(STEP + 1)
    job = yaml_lite.read(metadata["config"])
    line = run.steps()[STEP + 1]
    shown = mochi.show("step", Checkpoint=str(run.checkpoint_path(STEP)), Data=str(data))
    s = Step(before, job, line, shown)
    s.forward(torch.float64)
    s.backward()
    compare(report, label, s, after, line)


def relative(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-300))


def compare(report, label, s, after, line):
    figures = max(abs(line[name] - value) / max(abs(value), 1e-2) for name, value in s.figures().items() if not name.startswith("proxy"))
    report.below(f"{label}: loss, relative", abs(line["loss"] / s.loss.item() - 1), 2e-6 + s.rough / 4)
    report.below(f"{label}: similarities and spread of the log, relative", figures, 2e-5)
    off = max(abs(line[name] - value) for name, value in s.figures().items() if name.startswith("proxy"))
    report.below(f"{label}: share of keys that outrank real, and all negatives", off, 1e-9)
    if s.mixing:
        report.below(f"{label}: the N hardest, most that one left out is nearer", s.hardest_off(), 8 * s.rough_embedding + 1e-5)
    # Without an uncertain ReLU the allowed part is that of float32 sums alone.
    off = s.momentum_off(after)
    worst = max(off[n] / (4 * s.uncertain[n] + 4 * s.rough + 2e-5) for n in off)
    median, allowed = np.median(list(off.values())), np.median(list(s.uncertain.values()))
    report.below(
        f"{label}: gradients with decay and momentum (median {median:.1g}), in units of what float32 explains (median {allowed:.1g})",
        worst,
        1,
    )
    report.below(f"{label}: optimiser, parameters from gradients", s.parameters_off(after), 3e-7)
    report.below(f"{label}: key encoder m·θk + (1−m)·θq", s.key_off(after), 1e-6)
    report.below(f"{label}: running statistics of both encoders, relative", s.statistics_off(after), 2e-5)
    report.below(f"{label}: keys in the queue, largest difference", s.queue_off(after), 4 * s.rough_embedding + 2e-6)
    report.none(
        f"{label}: slots of the queue, labels and its pointer that should not have changed or are not as they should", *s.queue_kept(after)
    )


class Step:
    def __init__(self, before, job, line, shown):
        self.before, self.job, self.line, self.shown = before, job, line, shown
        self.mixing = job["mochi"][0] > 0
        self.rough, self.rough_embedding = 0.0, 0.0
        self.names = [n.removeprefix("optimizer.momentum.") for n in before if n.startswith("optimizer.momentum.")]

    def forward(self, dtype):
        job, shown = self.job, self.shown
        b, group, tau = job["batch"], job["bn-group"], job["temperature"]
        self.query, key = (loaded(self.before, p, job, dtype) for p in ("encoder_q.", "encoder_k."))
        # ShuffleBN: the key encoder gets the batch permuted, and its keys go back.
        statistics = [Statistics(self.query), Statistics(key)]
        with torch.no_grad():
            shuffled = embed(key, shown["keys"], group, dtype)
            k = torch.empty_like(shuffled)
            k[torch.from_numpy(shown["shuffle"].astype(np.int64))] = shuffled
        q = embed(self.query, shown["queries"], group, dtype)
        self.statistics = [s.means() for s in statistics]
        # How far float32 is off in PyTorch itself, which grows with the network's depth.
        with torch.no_grad():
            for prefix, images, exact in (("encoder_q.", "queries", q), ("encoder_k.", "keys", shuffled)):
                off = embed(loaded(self.before, prefix, job, torch.float32), shown[images], group, torch.float32).to(dtype) - exact
                self.rough_embedding = max(self.rough_embedding, float(off.abs().max()))
                self.rough = max(self.rough, float(off.norm() / exact.norm()))
        queue = torch.from_numpy(self.before["queue"].T.copy()).to(dtype)
        counted = torch.ones(b, len(queue), dtype=torch.bool)
        if job["oracle"]:
            counted = torch.from_numpy(self.before["queue_labels"][None, :] != shown["labels"][:, None])
        real = (q @ queue.T).masked_fill(~counted, -np.inf)
        positive = (q * k).sum(1, keepdim=True)
        logits = [positive, real]
        if self.mixing:
            logits += [self.pairs(q, queue), self.with_query(q, queue)]
        logits = torch.cat(logits, 1)
        self.loss = F.cross_entropy(logits / tau, torch.zeros(b, dtype=torch.long))
        self.q, self.k, self.real, self.counted, self.logits = q.detach(), k, real.detach(), counted, logits.detach()

    def pairs(self, q, queue):
        """q·h, h the normalised α·n_i + (1−α)·n_j: every one is built."""
        alpha = torch.from_numpy(self.shown["alpha"].copy()).to(q.dtype)[:, :, None]
        first, second = (torch.from_numpy(self.shown[n].astype(np.int64)) for n in ("first", "second"))
        h = F.normalize(alpha * queue[first] + (1 - alpha) * queue[second], dim=2)
        return torch.einsum("bd,bsd->bs", q, h)

    def with_query(self, q, queue):
        """q·h′, h′ the normalised β·q + (1−β)·n_j, which is a constant."""
        beta = torch.from_numpy(self.shown["beta"].copy()).to(q.dtype)[:, :, None]
        partner = torch.from_numpy(self.shown["partner"].astype(np.int64))
        h = F.normalize(beta * q.detach()[:, None] + (1 - beta) * queue[partner], dim=2)
        return torch.einsum("bd,bsd->bs", q, h)

    def backward(self):
        """Gradients, and by how much those differ, relatively, in which uncertain ReLUs are drawn."""
        parameters = dict(self.query.named_parameters())

        def gradients():
            found = torch.autograd.grad(self.loss, parameters.values(), retain_graph=True)
            return {n: g.numpy() for n, g in zip(parameters, found, strict=True)}

        self.grads = gradients()
        self.uncertain = dict.fromkeys(parameters, 0.0)
        torch.manual_seed(1)
        Rectified.uncertain = max(4e-6, 4 * self.rough)
        for _ in range(3):
            for n, g in gradients().items():
                self.uncertain[n] = max(self.uncertain[n], relative(g, self.grads[n]))
        Rectified.uncertain = 0.0

    def figures(self):
        positive, real = self.logits[:, 0], self.real
        finite = torch.where(self.counted, real, torch.zeros_like(real))
        f = {
            "pos_sim": positive.mean(), "neg_sim": (finite.sum(1) / self.counted.sum(1)).mean(), "hardest_sim": real.max(1).values.mean(),
            "proxy_acc": (positive > real.max(1).values).double().mean(), "proxy_acc_hard": (positive > self.logits[:, 1:].max(1).values).double().mean(),
        }  # fmt: skip
        if self.mixing:
            n = self.job["mochi"][0]
            f["hard_sim"] = real.topk(n, 1).values.mean()
        group = self.job["bn-group"]
        spread = [g.std(0).mean() * np.sqrt(g.shape[1]) for g in self.q.split(group)]
        f["spread"] = torch.stack(spread).mean()
        return {name: float(value) for name, value in f.items()}

    def hardest_off(self):
        """How far the least of the chosen lies below the most of those left out, at most."""
        chosen = torch.zeros_like(self.real, dtype=torch.bool)
        chosen.scatter_(1, torch.from_numpy(self.shown["hard"].astype(np.int64)), True)
        if not (chosen.sum(1) == self.job["mochi"][0]).all():
            return float("inf")
        least = torch.where(chosen, self.real, torch.full_like(self.real, np.inf)).min(1).values
        most = torch.where(chosen, torch.full_like(self.real, -np.inf), self.real).max(1).values
        return float((most - least).max())

    def momentum_off(self, after):
        """By parameter, how far the optimiser's momentum is from v′ = μ·v + u, relative to u, the gradient with what is added to it."""
        off = {}
        for name in self.names:
            w = self.before["encoder_q." + name].astype(np.float64)
            u = self.update(w, self.grads[name])
            v = self.job["sgd-momentum"] * self.before["optimizer.momentum." + name].astype(np.float64) + u
            off[name] = float(np.linalg.norm(after["optimizer.momentum." + name] - v) / np.linalg.norm(u))
        return off

    def update(self, w, g):
        """What an optimiser adds to the momentum for a gradient."""
        if self.job["optimizer"] == "sgd":
            return g + self.job["weight-decay"] * w
        if w.ndim == 1:
            return g
        u = g + self.job["weight-decay"] * w
        norms = np.linalg.norm(w), np.linalg.norm(u)
        return u * (0.001 * norms[0] / norms[1] if min(norms) > 0 else 1)

    def parameters_off(self, after):
        worst = 0.0
        for name in self.names:
            w, v = self.before["encoder_q." + name].astype(np.float64), after["optimizer.momentum." + name].astype(np.float64)
            worst = max(worst, relative(after["encoder_q." + name], w - self.line["lr"] * v))
        return worst

    def key_off(self, after):
        m = self.job["momentum"]
        return max(
            relative(
                after["encoder_k." + n],
                m * self.before["encoder_k." + n].astype(np.float64) + (1 - m) * after["encoder_q." + n].astype(np.float64),
            )
            for n in self.names
        )

    def statistics_off(self, after):
        worst = 0.0
        for prefix, means in zip(("encoder_q.", "encoder_k."), self.statistics, strict=True):
            if set(means) != {f"{n}.{part}" for n in norms(self.query) for part in ("running_mean", "running_var")}:
                return float("inf")
            for name, mean in means.items():
                want = 0.9 * self.before[prefix + name].astype(np.float64) + 0.1 * mean
                worst = max(worst, relative(after[prefix + name], want))
        return worst

    def slots(self):
        k = self.before["queue"].shape[1]
        return (int(self.before["queue_ptr"][0]) + np.arange(self.job["batch"])) % k

    def queue_off(self, after):
        return float(np.abs(after["queue"].T[self.slots()] - self.k.numpy()).max())

    def queue_kept(self, after):
        k, slots = self.before["queue"].shape[1], self.slots()
        others = np.setdiff1d(np.arange(k), slots)
        changed = (after["queue"][:, others] != self.before["queue"][:, others]).any(0).sum()
        changed += (after["queue_labels"][others] != self.before["queue_labels"][others]).sum()
        changed += (after["queue_labels"][slots] != self.shown["labels"]).sum()
        changed += int(after["queue_ptr"][0]) != (slots[-1] + 1) % k
        return int(changed), k + 1
