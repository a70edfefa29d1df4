"""The same bits, whoever computes them: replicas, threads, copies, a resume."""

import hashlib

import digits

SETTINGS = {
    "arch": "resnet8", "head": "linear", "image_size": 16, "recipe": "cifar", "batch": 48, "bn_group": 8, "queue": 200, "dim": 32, "temperature": 0.1, "momentum": 0.99,
    "mochi": "64,32,16", "mochi_warmup": 0, "epochs": 2, "lr": 0.06, "weight_decay": 5e-4, "knn_every": 0, "checkpoint_every": 7, "keep": 9, "steps": 14, "seed": 3,
}  # fmt: skip
ALONE = {"replicas": 1, "threads": 1}


def tensors_of(run):
    """A hash of the tensors of the last checkpoint, by this code and not by mochi."""
    tensors, _ = run.checkpoint(SETTINGS["steps"])
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].tobytes())
    return digest.hexdigest()


def checked(mochi, report):
    report.begin("Equal bits after 14 steps: parameters, momentum, statistics, queue")
    data = digits.write(mochi.work / "digests-data")

    def train(name, **changes):
        return mochi.train(f"digests-{name}", data, **{**SETTINGS, **ALONE, **changes})

    for pairs, variants in {
        "all": {
            "2 replicas": {"replicas": 2}, "3 replicas": {"replicas": 3}, "2 threads": {"threads": 2}, "5 shards": {"queue_shards": 5}, "3 loader threads": {"workers": 3},
        },
        "shard": {
            "2 replicas": {"replicas": 2}, "2 replicas, 2 copies": {"replicas": 2, "queue_copies": 2},
            "3 replicas, 2 copies": {"replicas": 3, "queue_copies": 2},
        },
    }.items():  # fmt: skip
        base = tensors_of(train(pairs, pairs=pairs))
        for number, (name, changes) in enumerate(variants.items()):
            got = tensors_of(train(f"{pairs}-{number}", pairs=pairs, **changes))
            report.none(f"pairs of {pairs}: runs of {name} that differ from one replica, one thread", int(got != base), 1)
        train(f"{pairs}-resumed", pairs=pairs, steps=7)
        resumed = tensors_of(train(f"{pairs}-resumed", pairs=pairs))
        report.none(f"pairs of {pairs}: runs stopped after 7 steps and resumed that differ", int(resumed != base), 1)
    other = tensors_of(train("other", seed=4))
    report.add("another seed gives other bits (this comparison can fail)", "other" if other != base else "the same", "other", other != base)
