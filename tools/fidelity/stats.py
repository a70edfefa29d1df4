"""Tests of what was drawn. All draws are seeded, so an outcome is the same in every run of the same code."""

import numpy as np
from scipy import stats


def same_law(a, b):
    """p of the two-sample Kolmogorov-Smirnov test."""
    return stats.ks_2samp(a, b, method="asymp").pvalue


def uniform(x, low, high):
    """p of the one-sample test against the uniform law, 0 where a value lies outside."""
    if np.min(x) < low or np.max(x) > high:
        return 0.0
    return stats.kstest(x, "uniform", args=(low, high - low), method="asymp").pvalue


def equally_often(counts):
    """p of the χ² test that all counts have one expectation."""
    return stats.chisquare(counts).pvalue


def share(hits, of, p):
    """How many standard errors a share of so many trials is off p."""
    return abs(hits / of - p) / np.sqrt(p * (1 - p) / of)


def largest_correlation(columns, others=None):
    """The largest rank correlation of two different columns [n, c], or of a column with one of the others, in standard errors (1/√n)."""

    def ranks(x):
        rank = stats.rankdata(x, axis=0)
        if (rank.std(0) == 0).any():
            raise ValueError("a column has one value only")
        return (rank - rank.mean(0)) / rank.std(0)

    n, rank = len(columns), ranks(columns)
    r = np.abs(rank.T @ (rank if others is None else ranks(others))) / n
    if others is None:
        np.fill_diagonal(r, 0)
    return float(r.max() * np.sqrt(n))
