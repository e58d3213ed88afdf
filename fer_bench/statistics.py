"""How sure a figure is: bootstrap intervals, paired tests and tie groups.

Pictures of one person are alike, and so are a model's answers to them: resampled one by one, they count as more than
they are, and an interval over many pictures of few people misses the truth half of the time. Where `subjects` are
given (unicode or int (N,), whom each picture shows), people are resampled, each with all of their pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from fer_bench.metrics import METRICS, checked, class_counts, confusion_parts, recall_from

FEW = 5
"""Of fewer people than this the spread among them says too little of how far the rest may be."""
HARDLY_ANY = 0.1
"""A smaller share of the resamples than this is too few of them for an interval."""
_CHUNK = 4_000_000
"""Resampled pictures held at a time (32 MB of weights), so that a large test set does not fill the memory."""


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _Statistic:
    """Sums over pictures (N, D) and the formula (..., D) -> (...) or (..., K) over them."""

    parts: np.ndarray
    combine: Callable[[np.ndarray], np.ndarray]
    bias: bool = False
    shown: Callable[[np.ndarray], np.ndarray] | None = None
    """For a fraction of pictures: the formula for how many it is a fraction of, shaped as `combine`'s."""
    classes: Callable[[np.ndarray], np.ndarray] | None = None
    """For a mean over the classes: the formula (..., D) -> (..., K) for how many pictures each has."""


def several(subjects: np.ndarray | None) -> np.ndarray | None:
    """The subjects (N,) as an array; None where they are not known or one alone, who is no sample of people."""
    return None if subjects is None or len(np.unique(subjects)) < 2 else np.asarray(subjects)


def per_subject(parts: np.ndarray, subjects: np.ndarray | None) -> np.ndarray:
    """Sums over pictures (N, D) -> sums over each subject's pictures (S, D); as they are without subjects (N,).

    Raises ValueError where there are not as many subjects as pictures.
    """
    if subjects is None:
        return parts
    names, places = np.unique(subjects, return_inverse=True)
    if places.shape != (len(parts),):
        raise ValueError(f"subjects of shape {places.shape} do not match {len(parts)} pictures")
    sums = np.zeros((len(names), parts.shape[1]))
    np.add.at(sums, places, parts)
    return sums


def covered_level(level: float, subjects: int | None) -> float:
    """The level of a percentile interval over so many subjects that covers the truth as often as `level` says; `level`
    itself where pictures are resampled (None), which are many.

    Resamples of n spread too little by sqrt((n - 1) / n), and by the normal's quantile in place of Student's t
    (Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 2015: expanded percentiles).
    """
    from scipy.special import ndtr, stdtrit  # a board opens without scipy

    if subjects is None:
        return level
    if subjects < 2:
        return 1.0
    return 1 - 2 * ndtr(-math.sqrt(subjects / (subjects - 1)) * stdtrit(subjects - 1, (1 + level) / 2))


def wilson(fraction: np.ndarray, count: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of a fraction of so many independent cases (Wilson, JASA 1927); it has a width at 0 and at 1 too."""
    square = NormalDist().inv_cdf((1 + level) / 2) ** 2
    scale = 1 + square / count
    middle = (fraction + square / (2 * count)) / scale
    half = np.sqrt(square * (fraction * (1 - fraction) / count + square / (4 * count**2))) / scale
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def _bootstrap(
    statistics: dict[str, _Statistic], samples: int, seed: int, level: float, subjects: np.ndarray | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(value, low, high) of each statistic, all over the same resamples (percentile method: Efron & Tibshirani, 1993).

    subjects: (N,), resampled with all their pictures (cluster bootstrap: Davison & Hinkley, 1997, section 3.8); None
    resamples pictures. Of fewer than `FEW` people such an interval is still too narrow: it cannot reach beyond the
    worst and the best of them; that of a fraction reaches as far as Wilson's over the people then.
    Where a metric is larger on resamples than on the sample itself, as a sum of absolute values is, the percentile
    interval can miss the figure it belongs to; there the resamples are moved by that bias, and kept above 0.
    Where all resamples agree, as they do where every picture is recognised, or none, they say nothing of how sure a
    fraction is, and its interval is Wilson's over the pictures, or the subjects, that it is a fraction of.
    A mean over the classes is another figure on a resample that lacks one of them: such resamples are left out, and
    where hardly any has all of them the interval is left without a width.
    """
    if samples < 2 or not 0 < level < 1:
        raise ValueError(f"samples must be at least 2 and level in (0, 1), not {samples} and {level}")
    units = {name: per_subject(statistic.parts, subjects) for name, statistic in statistics.items()}
    count = len(next(iter(units.values())))
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // count)
    draws: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    for start in range(0, samples, rows):
        size = min(rows, samples - start)
        chosen = rng.integers(0, count, size=(size, count)) + np.arange(size)[:, None] * count
        weights = np.bincount(chosen.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        for name, statistic in statistics.items():
            sums = weights @ units[name]
            drawn = statistic.combine(sums)
            if statistic.classes is not None:
                shown = statistic.classes(statistic.parts.sum(axis=0)) > 0
                drawn = np.where((statistic.classes(sums)[:, shown] > 0).all(axis=1), drawn, np.nan)
            draws[name].append(drawn)
    intervals = {}
    for name, statistic in statistics.items():
        value, drawn = statistic.combine(statistic.parts.sum(axis=0)), np.concatenate(draws[name])
        if statistic.classes is not None and np.isfinite(drawn).mean() < HARDLY_ANY:
            drawn = np.full_like(drawn, value)
        if statistic.bias:
            drawn = np.maximum(drawn - (drawn.mean() - value), 0)
        # A class without pictures has no recall in any resample; a rare one lacks it in some.
        drawn = np.where(np.isfinite(value), drawn, 0)
        people = np.asarray(count if statistic.shown is None else (statistic.shown(units[name]) > 0).sum(axis=0))
        low, high = _percentiles(drawn, level, None if subjects is None else people)
        if statistic.shown is not None:
            least, most = wilson(value, np.maximum(people, 1), level)
            wider = np.nanmin(drawn, axis=0) == np.nanmax(drawn, axis=0)
            wider |= (people < FEW) & (subjects is not None)
            low, high = np.where(wider, np.minimum(low, least), low), np.where(wider, np.maximum(high, most), high)
        intervals[name] = (value, np.where(np.isfinite(value), low, np.nan), np.where(np.isfinite(value), high, np.nan))
    return intervals


def _percentiles(drawn: np.ndarray, level: float, people: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The bounds (...) of resamples (S, ...): over pictures, or over so many people (...) (see `covered_level`)."""
    if people is None:
        low, high = np.nanpercentile(drawn, (50 * (1 - level), 50 * (1 + level)), axis=0)
        return low, high
    flat, counts = drawn.reshape(len(drawn), -1), np.broadcast_to(people, drawn.shape[1:]).ravel()
    levels = [covered_level(level, int(n)) for n in counts]
    bounds = [np.nanpercentile(flat[:, i], (50 * (1 - at), 50 * (1 + at))) for i, at in enumerate(levels)]
    low, high = (np.reshape(ends, drawn.shape[1:]) for ends in zip(*bounds, strict=True))
    return low, high


def bootstrap_metrics(
    targets: np.ndarray,
    logits: np.ndarray,
    metrics: Iterable[str] = tuple(METRICS),
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    subjects: np.ndarray | None = None,
) -> dict[str, Interval]:
    """Bootstrap intervals of several metrics over the same resamples of pictures, keyed by the metric's name.

    Where all resamples agree on a mean over the classes, as they do where every picture is recognised, or all are taken
    for one class, its interval is as wide as the mean of the recalls' intervals; so it is where hardly any resample has
    pictures of all classes. Of one picture the calibration error may be anything, which is its interval.
    """
    means = ("balanced_accuracy", "macro_f1")
    shown = {"accuracy": lambda sums: sums.sum(axis=-1)}
    classes = dict.fromkeys(means, class_counts)
    chosen = {
        name: _Statistic(
            metric.parts(targets, logits), metric.combine, metric.resampling_bias, shown.get(name), classes.get(name)
        )
        for name, metric in ((name, METRICS[name]) for name in metrics)
    }
    found = _bootstrap(chosen, samples, seed, level, subjects)
    intervals = {name: Interval(*map(float, bounds)) for name, bounds in found.items()}
    if "ece" in intervals and len(targets) < 2:
        intervals["ece"] = replace(intervals["ece"], low=0.0, high=1.0)
    for name in means:
        i = intervals.get(name)
        if i is not None and i.low == i.high:
            recalls = bootstrap_recalls(targets, logits, samples, seed, level, subjects)
            ends = [(r.value - r.low, r.high - r.value) for r in recalls]
            down, up = np.nanmean(ends, axis=0)
            intervals[name] = Interval(i.value, max(i.value - float(down), 0.0), min(i.value + float(up), 1.0))
    return intervals


def bootstrap_interval(
    targets: np.ndarray,
    logits: np.ndarray,
    metric: str = "accuracy",
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    subjects: np.ndarray | None = None,
) -> Interval:
    """A metric (a key of `metrics.METRICS`) with its percentile bootstrap interval, resampling pictures or subjects.

    targets: int (N,).   logits: float (N, K). The same for the same seed. Raises ValueError for non-finite logits.
    """
    return bootstrap_metrics(targets, logits, (metric,), samples, seed, level, subjects)[metric]


def bootstrap_recalls(
    targets: np.ndarray,
    logits: np.ndarray,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    subjects: np.ndarray | None = None,
) -> list[Interval]:
    """Each class's recall with its interval: K of them; all NaN for a class without pictures.

    Over pictures it is Wilson's, which holds for the few that a rare class has; over `subjects` the bootstrap's.
    """
    if subjects is None:
        sums = confusion_parts(targets, logits).sum(axis=0)
        counts = sums.reshape(np.shape(logits)[1], -1).sum(axis=1)
        recalls = recall_from(sums)
        low, high = wilson(recalls, np.maximum(counts, 1), level)
        return [Interval(*map(float, bounds)) for bounds in zip(recalls, low, high, strict=True)]
    parts, classes = confusion_parts(targets, logits), np.shape(logits)[1]
    recall = _Statistic(parts, recall_from, shown=lambda sums: sums.reshape(-1, classes, classes).sum(axis=2))
    found = _bootstrap({"recall": recall}, samples, seed, level, subjects)
    return [Interval(*map(float, bounds)) for bounds in zip(*found["recall"], strict=True)]


def _both_correct(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool (N,) twice: which pictures each of two models recognises."""
    targets, first = checked(targets, first)
    _, second = checked(targets, second)
    return first.argmax(axis=1) == targets, second.argmax(axis=1) == targets


def paired_difference(
    targets: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    subjects: np.ndarray | None = None,
) -> Interval:
    """Accuracy of the `first` logits (N, K) minus that of the `second`, resampling pictures (or subjects) with both
    answers. Where all resamples agree, as where both recognise the same, the interval is as wide as Wilson's of a
    fraction of 0 of as many cases is on its one side."""
    one, other = _both_correct(targets, first, second)
    parts = np.stack([one.astype(np.float64) - other, np.ones(len(one))], axis=1)
    difference = _Statistic(parts, lambda sums: sums[..., 0] / sums[..., 1])
    value, low, high = map(float, _bootstrap({"": difference}, samples, seed, level, subjects)[""])
    if low == high:
        cases = len(one) if subjects is None else len(np.unique(subjects))
        wide = float(wilson(np.float64(0), np.float64(cases), level)[1])
        low, high = max(value - wide, -1.0), min(value + wide, 1.0)
    return Interval(value, low, high)


def mcnemar(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p-value that two models (logits (N, K) each) err equally often (McNemar, 1947; binomial form)."""
    one, other = _both_correct(targets, first, second)
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    discordant, term, tail = only_first + only_second, 1, 0
    for index in range(min(only_first, only_second) + 1):
        tail += term
        term = term * (discordant - index) // (index + 1)
    return min(1.0, 2 * tail / 2**discordant)


def sign_flip(targets: np.ndarray, first: np.ndarray, second: np.ndarray, subjects: np.ndarray) -> float:
    """Exact two-sided p-value that neither of two models (logits (N, K) each) recognises people better than the other.

    Each subject (N,) counts with how many more of their pictures the first recognises; were there no difference, every
    such count could as well have the other sign. p is the share of all these flips whose sum is at least as far from 0
    (Fisher, The Design of Experiments, 1935, section 21). With a picture of each person it is McNemar's exact test.
    """
    one, other = _both_correct(targets, first, second)
    gains = per_subject((one.astype(np.float64) - other)[:, None], subjects)[:, 0].astype(np.int64)
    chances = np.ones(1)  # of each sum, from the least to the largest possible, in steps of 1
    for gain in np.abs(gains):
        chances = (np.pad(chances, (0, 2 * gain)) + np.pad(chances, (2 * gain, 0))) / 2
    sums = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(chances[np.abs(sums) >= abs(gains.sum())].sum()))


def difference_over_seeds(
    first: np.ndarray, second: np.ndarray, subjects: np.ndarray | None = None, level: float = 0.95
) -> tuple[Interval, float]:
    """Mean accuracy of one method's networks minus that of another's, with an interval and a two-sided p-value that
    hold for training them again, and for other pictures.

    first: bool (A, N), second: bool (B, N): which pictures each network, trained from a seed of its own, recognises.
    One row stands for weights that are given and no seed's. Student's t over three sources of chance: A seeds, B seeds
    and the pictures (or subjects (N,)), with Welch and Satterthwaite's degrees of freedom. What seeds and pictures do
    together counts in both, so that p is, if anything, too large where both have several seeds. Beside given weights
    it is too small: equal methods, simulated, have p < 0.05 in 5 to 7 % of cases of three seeds, in 8 to 12 % of two.
    Why seeds: Bouthillier et al., Accounting for variance in machine learning benchmarks, MLSys 2021. Raises ValueError
    for fewer than two pictures.
    """
    from scipy.special import stdtr, stdtrit  # a board opens without scipy

    apart = first.mean(axis=0) - second.mean(axis=0)
    if len(apart) < 2:
        raise ValueError(f"{len(apart)} picture(s) are too few to compare over")
    value = float(apart.mean())
    off = per_subject((apart - value)[:, None], several(subjects))[:, 0]
    units = len(off)
    sources = [((off**2).sum() / len(apart) ** 2 * units / (units - 1), units - 1)]
    for right in (first, second):
        if len(right) > 1:
            sources.append((right.mean(axis=1).var(ddof=1) / len(right), len(right) - 1))
    variance = sum(part for part, _ in sources)
    if variance == 0:
        return Interval(value, value, value), 1.0 if value == 0 else 0.0
    freedom = variance**2 / sum(part**2 / free for part, free in sources)
    half = float(stdtrit(freedom, (1 + level) / 2) * math.sqrt(variance))
    p_value = float(2 * stdtr(freedom, -abs(value) / math.sqrt(variance)))
    return Interval(value, value - half, value + half), p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for asking several questions at once (Holm, Scand. J. Statist. 1979), in the order given.

    Those below a level are, with a probability of at least 1 - level, all true; no assumption on their dependence.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for done, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - done) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def tie_ranks(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """int64 (M,): 1 + the number of models whose interval lies wholly above one's own (LMArena's rule).

    low, high: float (M,), the bounds of a higher-is-better figure. Intervals that touch overlap.
    """
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    return 1 + len(low) - np.searchsorted(np.sort(low), high, side="right").astype(np.int64)
