"""What is drawn for synthetic negatives: mixing coefficients and pairs."""

import numpy as np

import stats

DRAWS = 1 << 20


def checked(mochi, report):
    report.begin("Mixing coefficients and pairs")
    for n in (64, 128, 256, 1024):
        for shards in (1, 16):
            drawn_from_all(mochi, report, n, shards)
    for n, shards in ((64, 16), (256, 16), (1024, 7)):
        drawn_in_shards(mochi, report, n, shards)


def shown(mochi, n, shards, in_shard):
    """A million pairs, and as many partners of the query."""
    return mochi.show(
        "mixing", N=n, S=1024, S2=1024, Keys=4 * n, Shards=shards, InShard=in_shard,
        Queries=64, Steps=DRAWS // 1024 // 64, Dim=16, Seed=20 + n + shards,
    )  # fmt: skip


def places(hard, slots):
    """Where in the row of its query's hard negatives each slot is."""
    order = np.argsort(hard, axis=1)
    ranked = np.take_along_axis(hard, order, 1)
    at = np.stack([np.searchsorted(r, s) for r, s in zip(ranked, slots, strict=True)])
    if not (np.take_along_axis(ranked, np.minimum(at, hard.shape[1] - 1), 1) == slots).all():
        raise ValueError("a key is mixed that is not among the hardest")
    return np.take_along_axis(order, at, 1)


def drawn_from_all(mochi, report, n, shards):
    d = shown(mochi, n, shards, False)
    first, second, partner = (places(d["hard"], d[name]) for name in ("first", "second", "partner"))
    same = int((first == second).sum())
    label = f"N = {n}, V = {shards}"
    report.below(
        f"{label}: the same key twice in {same / first.size:.2%} of pairs (1/N), standard errors off",
        stats.share(same, first.size, 1 / n),
        4,
    )
    worst = min(stats.equally_often(np.bincount(x.ravel(), minlength=n)) for x in (first, second, partner))
    report.above(f"{label}: all N equally often, first, second, partner, smallest p", worst, 1e-4)
    bins = np.bincount((first * 8 // n * 8 + second * 8 // n).ravel(), minlength=64)
    report.above(f"{label}: first and second independent, p of an 8×8 table", stats.equally_often(bins), 1e-4)
    report.above(f"{label}: α uniform in 0 … 1, p", stats.uniform(d["alpha"].ravel(), 0, 1), 1e-4)
    report.above(f"{label}: β uniform in 0 … ½, p", stats.uniform(d["beta"].ravel(), 0, 0.5), 1e-4)
    pairs = np.stack([first.ravel(), second.ravel(), d["alpha"].ravel()], 1)
    points = np.stack([partner.ravel(), d["beta"].ravel()], 1)
    off = max(stats.largest_correlation(pairs), stats.largest_correlation(points), stats.largest_correlation(pairs, points))
    off = max(off, stats.largest_correlation(pairs[:-1], pairs[1:]), stats.largest_correlation(pairs[:-1024], pairs[1024:]))
    report.below(f"{label}: members and coefficients of one point, and of others, independent, rank correlation × √n", off, 5)


def drawn_in_shards(mochi, report, n, shards):
    d = shown(mochi, n, shards, True)
    label = f"pairs in a shard, N = {n}, V = {shards}"
    first, second = d["first"], d["second"]
    places(d["hard"], first), places(d["hard"], second)
    report.none(f"{label}: pairs of one key", int((first == second).sum()), first.size)
    report.none(f"{label}: pairs across shards", int((first % shards != second % shards).sum()), first.size)
    report.above(f"{label}: α uniform, p", stats.uniform(d["alpha"].ravel(), 0, 1), 1e-4)
    report.above(f"{label}: β uniform in 0 … ½, p", stats.uniform(d["beta"].ravel(), 0, 0.5), 1e-4)
    # The first is uniform among the hard negatives that have another in their shard.
    at = places(d["hard"], first)
    shard = d["hard"] % shards
    alone = np.stack([np.bincount(row, minlength=shards)[row] == 1 for row in shard])
    expected = (~alone / (~alone).sum(1, keepdims=True)).sum(0) * first.shape[1]
    counts = np.bincount(at.ravel(), minlength=n)
    from scipy.stats import chisquare

    report.above(f"{label}: first uniform among those that are not alone in their shard, p", chisquare(counts, expected).pvalue, 1e-4)
