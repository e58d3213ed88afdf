"""Intervals, paired tests and tie groups against hand-worked cases, scipy and known distributions."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy.stats import binomtest

from fer_bench import metrics as m
from fer_bench import statistics as s


def answers(correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets (alternating 0 and 1) and logits that are right exactly where `correct` is true."""
    targets = np.arange(len(correct)) % 2
    logits = np.zeros((len(correct), 2))
    logits[np.arange(len(correct)), np.where(correct, targets, 1 - targets)] = 1.0
    return targets, logits


def noisy(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`count` pictures of 7 classes, about 60 % of them recognised."""
    rng = np.random.default_rng(seed)
    targets, logits = rng.integers(0, 7, count), rng.normal(size=(count, 7))
    logits[np.arange(count), targets] += 1.7
    return targets, logits


def test_an_interval_around_certainty_has_no_width():
    """Where every answer is right, every resample is too."""
    assert s.bootstrap_interval(*answers(np.ones(20, bool)), "accuracy") == s.Interval(1.0, 1.0, 1.0)


def test_a_two_picture_bootstrap_worked_by_hand():
    """One right of two resamples to 0, 1/2, 1 with chances 1/4, 1/2, 1/4: 90 % of that is 0..1, 40 % is 1/2."""
    targets, logits = answers(np.array([True, False]))
    assert s.bootstrap_interval(targets, logits, "accuracy", level=0.9) == s.Interval(0.5, 0.0, 1.0)
    assert s.bootstrap_interval(targets, logits, "accuracy", level=0.4) == s.Interval(0.5, 0.5, 0.5)


def test_the_accuracy_interval_is_the_binomial_one():
    """With 2,000 pictures the interval's bounds are the normal approximation's, p ± 1.96 sqrt(p(1-p)/n)."""
    targets, logits = answers(np.arange(2000) % 10 < 7)
    interval = s.bootstrap_interval(targets, logits, "accuracy", samples=4000)
    half = 1.959964 * math.sqrt(0.7 * 0.3 / 2000)
    assert interval.value == 0.7
    assert (interval.low, interval.high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.0015)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Over 300 drawn data sets the 90 % interval holds the true accuracy in 90 % of cases (± 3 standard errors)."""
    rng = np.random.default_rng(5)
    covered = 0
    for repeat in range(300):
        interval = s.bootstrap_interval(*answers(rng.random(250) < 0.65), "accuracy", 400, repeat, level=0.9)
        covered += interval.low <= 0.65 <= interval.high
    assert covered / 300 == pytest.approx(0.9, abs=3 * math.sqrt(0.9 * 0.1 / 300))


@pytest.mark.parametrize("name", m.METRICS)
def test_the_fast_bootstrap_is_a_resampling_of_pictures(name):
    """Every metric's interval is the one that a plain loop over resampled pictures gives."""
    targets, logits = noisy(300)
    interval = s.bootstrap_interval(targets, logits, name, samples=400, seed=2)
    rng = np.random.default_rng(2)
    draws = []
    for chosen in rng.integers(0, 300, size=(400, 300)):
        draws.append(m.METRICS[name](targets[chosen], logits[chosen]))
    draws = np.array(draws)
    if name == "ece":  # moved by its resampling bias, as its docstring says
        draws = np.maximum(draws - draws.mean() + m.ece(targets, logits), 0)
    assert interval.value == m.METRICS[name](targets, logits)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=1e-9)


def test_a_calibrated_models_ece_lies_in_its_own_interval():
    """Resampling raises the calibration error of a calibrated model, and the interval is moved back around it."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1500, 7)) * 2
    cumulated = m.softmax(logits).cumsum(axis=1)
    targets = np.minimum((cumulated < rng.random((1500, 1))).sum(axis=1), 6)
    interval = s.bootstrap_interval(targets, logits, "ece")
    resampled = np.random.default_rng(0).integers(0, 1500, 1500)
    assert m.ece(targets[resampled], logits[resampled]) > interval.value
    assert interval.low < interval.value < interval.high


def test_recalls_have_intervals_and_absent_classes_none():
    """Recall intervals hold each class's recall, and are NaN for a class without pictures."""
    targets = np.array([0] * 50 + [1] * 50)
    logits = np.zeros((100, 3))
    logits[np.arange(100), np.where(np.arange(100) % 5 == 0, 1 - targets, targets)] = 1
    first, second, third = s.bootstrap_recalls(targets, logits)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 50)
    for recall in (first, second):
        assert recall.value == 0.8
        assert (recall.low, recall.high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.03)
    assert np.isnan([third.value, third.low, third.high]).all()


def test_the_seed_decides_the_interval():
    """The same seed gives the same interval, another seed another one."""
    targets, logits = noisy(200)
    first, again, other = (s.bootstrap_interval(targets, logits, "nll", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_test_set_larger_than_a_chunk_gives_the_same_interval(monkeypatch):
    """Drawing the resamples in chunks, to spare memory, does not change what they say."""
    targets, logits = noisy(400)
    whole = s.bootstrap_interval(targets, logits, "macro_f1", samples=500)
    monkeypatch.setattr(s, "_CHUNK", 400 * 100)
    chunked = s.bootstrap_interval(targets, logits, "macro_f1", samples=500)
    assert (chunked.low, chunked.high) == pytest.approx((whole.low, whole.high), abs=0.01)


def test_all_metrics_of_a_test_set_take_less_than_three_seconds():
    """A thousand resamples of 3,600 pictures and all metrics cost less than 3 s."""
    targets, logits = noisy(3600)
    start = time.perf_counter()
    found = s.bootstrap_metrics(targets, logits)
    assert time.perf_counter() - start < 3
    assert list(found) == list(m.METRICS)


def test_paired_difference_of_equal_models_is_exactly_zero():
    """Two models that answer alike differ by nothing, in every resample."""
    targets, logits = noisy(100)
    assert s.paired_difference(targets, logits, 2 * logits) == s.Interval(0.0, 0.0, 0.0)


def test_paired_difference_uses_the_pairing():
    """A model that gets 5 % more of the same pictures right is surely better, though both intervals overlap."""
    index = np.arange(400)
    targets, worse = answers(index % 10 < 6)
    _, better = answers((index % 10 < 6) | (index % 20 == 19))
    difference = s.paired_difference(targets, better, worse, samples=4000)
    half = 1.96 * math.sqrt(0.05 * 0.95 / 400)
    assert difference.value == pytest.approx(0.05)
    assert (difference.low, difference.high) == pytest.approx((0.05 - half, 0.05 + half), abs=0.004)
    assert s.bootstrap_interval(targets, better).low < s.bootstrap_interval(targets, worse).high


def test_mcnemar_worked_by_hand():
    """With 5 pictures only the first gets right and 1 only the second, p = 2 (1 + 6) / 2^6 = 7/32."""
    first = np.array([True] * 5 + [False] + [True] * 4)
    second = np.array([False] * 5 + [True] + [True] * 4)
    targets, one = answers(first)
    assert s.mcnemar(targets, one, answers(second)[1]) == 7 / 32
    assert s.mcnemar(targets, answers(second)[1], one) == 7 / 32
    assert s.mcnemar(targets, one, one) == 1.0


def test_mcnemar_is_the_exact_binomial_test():
    """The p-value is scipy's for thousands of discordant pictures, too."""
    rng = np.random.default_rng(1)
    first, second = rng.random(6000) < 0.6, rng.random(6000) < 0.57
    targets, one = answers(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    expected = binomtest(only_first, only_first + only_second).pvalue
    assert s.mcnemar(targets, one, answers(second)[1]) == pytest.approx(expected, rel=1e-9)


def test_rank_counts_the_intervals_wholly_above():
    """Of .70-.74, .68-.72, .60-.69, .50-.55 the third lies below the first only, the last below all three."""
    ranks = s.tie_ranks([0.60, 0.70, 0.50, 0.68], [0.69, 0.74, 0.55, 0.72])
    assert ranks.tolist() == [2, 1, 4, 1]


def test_touching_intervals_share_a_rank():
    """An interval that begins where another ends does not lie wholly above it."""
    assert s.tie_ranks([0.5, 0.6], [0.6, 0.7]).tolist() == [1, 1]


def test_holm_worked_by_hand():
    """The smallest of three p-values counts three times, the next twice, and none falls below a smaller one's."""
    assert s.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert s.holm([0.5, 0.001, 0.4]) == pytest.approx([0.8, 0.003, 0.8])
    assert s.holm([0.7, 0.6]) == [1.0, 1.0]
    assert s.holm([0.02]) == [0.02]
    assert s.holm([]) == []
