"""What is measured of features: kNN, alignment, uniformity, spread."""

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from network import features as features_of
from network import loaded


def normalised(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def alignment(x, y):
    return float(((x - y) ** 2).sum(1).mean())


def uniformity(x):
    x = x.astype(np.float64)
    near = np.exp(-2 * (2 - 2 * x @ x.T))
    return float(np.log(near[np.triu_indices(len(x), 1)].mean()))


def spread(x):
    return x.astype(np.float64).std(0) * np.sqrt(x.shape[1])


def neighbours(train, labels, test, k, temperature):
    """Shares of votes by scikit-learn, of each class."""
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature))
    return model.fit(train.astype(np.float64), labels).predict_proba(test.astype(np.float64))


def accuracies(votes, labels):
    order = np.argsort(-votes, axis=1, kind="stable")
    hits = order == labels[:, None]
    return hits[:, 0].mean(), hits[:, :5].any(1).mean()


def measured(mochi, report):
    report.begin("kNN, alignment, uniformity and spread of given features")
    rng = np.random.default_rng(2)
    for n, m, dim, classes, k, temperature in ((3000, 1000, 64, 10, 200, 0.1), (700, 300, 128, 20, 20, 0.5), (150, 100, 16, 7, 150, 0.07)):
        centres = rng.normal(size=(classes, dim))
        labels, wanted = rng.integers(0, classes, n), rng.integers(0, classes, m)
        train = normalised(centres[labels] + 3 * rng.normal(size=(n, dim)))
        test = normalised(centres[wanted] + 3 * rng.normal(size=(m, dim)))
        file = mochi.work / "features.f32"
        np.concatenate([train, test]).tofile(file)
        shown = mochi.show(
            "features", File=str(file), Dim=dim, N=n, M=m, K=k, Temperature=temperature, Classes=classes,
            TrainLabels=labels.tolist(), Labels=wanted.tolist(), Uniformity=True, KNN=True,
        )  # fmt: skip
        label = f"{n} and {m} features of {dim}"
        want = accuracies(neighbours(train, labels, test, k, temperature), wanted)
        worst = max(abs(a - b) for a, b in zip(shown["knn"], want, strict=True)) * m
        report.below(f"{label}: kNN, k {k}, top-1 {want[0]:.3f} and top-5, in images", worst, 1e-6)
        pairs = alignment(train[:m].astype(np.float64), test)
        report.below(f"{label}: alignment, relative", abs(shown["alignment"][0] / pairs - 1), 1e-6)
        report.below(f"{label}: uniformity, absolute", abs(shown["uniformity"][0] - uniformity(train)), 1e-5)
        report.below(f"{label}: spread, relative", np.abs(shown["spread"] / spread(train) - 1).max(), 1e-5)


def of_a_run(mochi, report, checkpoint, data, settings):
    """mochi eval knn and geometry of a checkpoint beside PyTorch's encoder with its weights."""
    from mochi import read

    tensors, _metadata = read(checkpoint)
    with torch.no_grad():
        query = loaded(tensors, "encoder_q.", settings, torch.float32)
        key = loaded(tensors, "encoder_k.", settings, torch.float32)
    train = mochi.show("eval", Data=str(data), Size=settings["image_size"])
    test = mochi.show("eval", Data=str(data), Size=settings["image_size"], Test=True)
    for number, name in enumerate(("backbone", "embedding")):
        rows = [features_of(query, x["views"])[number] for x in (train, test)]
        want = accuracies(neighbours(rows[0], train["labels"], rows[1], 200, 0.1), test["labels"])
        got = mochi.json("eval", "knn", "--checkpoint", checkpoint, "--data", data, "--feature", name)
        worst = max(abs(got["knn_top1"] - want[0]), abs(got["knn_top5"] - want[1])) * len(test["labels"])
        report.below(f"mochi eval knn, {name} (top-1 {want[0]:.3f}): differs by images", worst, 1.01)
    seed, recipe = 1, settings["recipe"]
    views = mochi.show("eval", Data=str(data), Size=settings["image_size"], Test=True, Recipe=recipe, Seed=seed)
    x, y = (features_of(query, views[v])[1] for v in ("queries", "keys"))
    k = features_of(key, views["keys"])[1]
    got = mochi.json("eval", "geometry", "--checkpoint", checkpoint, "--data", data, "--images", 0, "--seed", seed)
    report.below("mochi eval geometry: alignment, relative", abs(got["alignment"] / alignment(x, y) - 1), 1e-5)
    report.below("mochi eval geometry: uniformity", abs(got["uniformity"] - (uniformity(x) + uniformity(y)) / 2), 1e-5)
    queue = tensors["queue"].T.astype(np.float64)
    real = x @ queue.T
    proxy = ((x * k).sum(1) > real.max(1)).mean()
    report.below(f"mochi eval geometry: proxy task ({proxy:.3f}), in images", abs(got["proxy_acc"] - proxy) * len(x), 1.01)
    report.below("mochi eval geometry: spread, relative", abs(got["spread"] / spread(x).mean() - 1), 1e-5)
