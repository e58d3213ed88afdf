"""Samples of a test split for what is too costly on all of it, and how sure a mean over them is."""

from __future__ import annotations

import numpy as np

from fer_bench.statistics import Interval, covered_level, per_subject, wilson

RESAMPLES = 1000


def stratified(labels: np.ndarray, count: int | None, seed: int = 0) -> np.ndarray:
    """int64 positions, ascending, of at most `count` pictures (None: all), each class in proportion to its size.

    labels: int (N,). Within a class the pictures are drawn at random, the same for the same seed. No class's share is
    off by a whole picture (largest remainders; of equal ones the first class's), so that the accuracy on the sample
    estimates that on the split.
    """
    labels = np.asarray(labels)
    if count is None or count >= len(labels):
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    names, sizes = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(sizes * count, len(labels))
    quotas[np.argsort(-remainders, kind="stable")[: count - quotas.sum()]] += 1
    chosen = [
        np.flatnonzero(labels == name)[rng.permutation(size) < quota]
        for name, size, quota in zip(names, sizes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def resampled_means(
    values: np.ndarray, seed: int = 0, samples: int = RESAMPLES, subjects: np.ndarray | None = None
) -> np.ndarray:
    """float64 (samples, D): the columns' means over bootstrap resamples of the rows of float (N, D).

    subjects: (N,), whom each row's picture shows; people are resampled then, each with all their rows (`statistics`).
    All columns share their resamples, so that differences and ratios of them may be formed (Efron & Tibshirani, 1993).
    """
    ones = np.ones((len(values), 1))
    parts = per_subject(np.hstack([np.asarray(values, dtype=np.float64), ones]), subjects)
    count = len(parts)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    sums = weights.astype(np.float64) @ parts
    return sums[:, :-1] / sums[:, -1:]


def percentile_interval(
    value: float,
    draws: np.ndarray,
    level: float = 0.95,
    subjects: np.ndarray | None = None,
    pictures: int | None = None,
) -> Interval:
    """A figure with the percentile interval of its resamples (S,); those that are not a number are left out.

    subjects: as `resampled_means` had them, since an interval over few people is made wider (`covered_level`).
    pictures: of which the figure is a fraction; where all resamples agree, the interval is then Wilson's over them, or
    over the people in them.
    """
    people = None if subjects is None else len(np.unique(subjects))
    covered = covered_level(level, people)
    low, high = np.nanpercentile(draws, (50 * (1 - covered), 50 * (1 + covered)))
    if pictures and np.nanmin(draws) == np.nanmax(draws):
        least, most = wilson(np.float64(value), np.float64(people or pictures), level)
        low, high = min(low, least), max(high, most)
    return Interval(float(value), float(low), float(high))


def mean_interval(
    values: np.ndarray, seed: int = 0, subjects: np.ndarray | None = None, span: tuple[float, float] | None = None
) -> Interval:
    """The mean of (N,) values, one per picture, with its 95 % bootstrap interval; subjects as `resampled_means`.

    That of booleans is a fraction of the pictures (see `percentile_interval`). span: what a value can be, which is the
    interval of a single picture: it says nothing of others.
    """
    pictures = len(values) if np.asarray(values).dtype == bool else None
    values = np.asarray(values, dtype=np.float64)
    if span is not None and pictures is None and len(values) == 1:
        return Interval(float(values[0]), *map(float, span))
    draws = resampled_means(values[:, None], seed, subjects=subjects)[:, 0]
    return percentile_interval(values.mean(), draws, subjects=subjects, pictures=pictures)
