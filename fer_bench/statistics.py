"""How sure a figure is: bootstrap intervals, paired tests and tie groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fer_bench.metrics import METRICS, checked, confusion_parts, recall_from

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


def _bootstrap(
    statistics: dict[str, _Statistic], samples: int, seed: int, level: float
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(value, low, high) of each statistic, all over the same resamples (percentile method: Efron & Tibshirani, 1993).

    Where a metric is larger on resamples than on the sample itself, as a sum of absolute values is, the percentile
    interval can miss the figure it belongs to; there the resamples are moved by that bias, and kept above 0.
    """
    if samples < 2 or not 0 < level < 1:
        raise ValueError(f"samples must be at least 2 and level in (0, 1), not {samples} and {level}")
    count = len(next(iter(statistics.values())).parts)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // count)
    draws: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    for start in range(0, samples, rows):
        size = min(rows, samples - start)
        chosen = rng.integers(0, count, size=(size, count)) + np.arange(size)[:, None] * count
        weights = np.bincount(chosen.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        for name, statistic in statistics.items():
            draws[name].append(statistic.combine(weights @ statistic.parts))
    bounds = (50 * (1 - level), 50 * (1 + level))
    intervals = {}
    for name, statistic in statistics.items():
        value, drawn = statistic.combine(statistic.parts.sum(axis=0)), np.concatenate(draws[name])
        if statistic.bias:
            drawn = np.maximum(drawn - (drawn.mean() - value), 0)
        # A class without pictures has no recall in any resample; a rare one lacks it in some.
        drawn = np.where(np.isfinite(value), drawn, 0)
        low, high = np.nanpercentile(drawn, bounds, axis=0)
        intervals[name] = (value, np.where(np.isfinite(value), low, np.nan), np.where(np.isfinite(value), high, np.nan))
    return intervals


def bootstrap_metrics(
    targets: np.ndarray,
    logits: np.ndarray,
    metrics: Iterable[str] = tuple(METRICS),
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Bootstrap intervals of several metrics over the same resamples of pictures, keyed by the metric's name."""
    chosen = {
        name: _Statistic(METRICS[name].parts(targets, logits), METRICS[name].combine, METRICS[name].resampling_bias)
        for name in metrics
    }
    found = _bootstrap(chosen, samples, seed, level)
    return {name: Interval(*map(float, bounds)) for name, bounds in found.items()}


def bootstrap_interval(
    targets: np.ndarray,
    logits: np.ndarray,
    metric: str = "accuracy",
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """A metric (a key of `metrics.METRICS`) with its percentile bootstrap interval, resampling pictures.

    targets: int (N,).   logits: float (N, K). The same for the same seed. Raises ValueError for non-finite logits.
    """
    return bootstrap_metrics(targets, logits, (metric,), samples, seed, level)[metric]


def bootstrap_recalls(
    targets: np.ndarray, logits: np.ndarray, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> list[Interval]:
    """Each class's recall with its interval: K of them; all NaN for a class without pictures."""
    found = _bootstrap({"recall": _Statistic(confusion_parts(targets, logits), recall_from)}, samples, seed, level)
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
) -> Interval:
    """Accuracy of the `first` logits (N, K) minus that of the `second`, resampling pictures with both answers."""
    one, other = _both_correct(targets, first, second)
    parts = one.astype(np.float64) - other
    found = _bootstrap({"": _Statistic(parts[:, None], lambda sums: sums[..., 0] / len(parts))}, samples, seed, level)
    return Interval(*map(float, found[""]))


def mcnemar(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p-value that two models (logits (N, K) each) err equally often (McNemar, 1947; binomial form)."""
    one, other = _both_correct(targets, first, second)
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    discordant, term, tail = only_first + only_second, 1, 0
    for index in range(min(only_first, only_second) + 1):
        tail += term
        term = term * (discordant - index) // (index + 1)
    return min(1.0, 2 * tail / 2**discordant)


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
