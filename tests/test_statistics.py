"""Intervals, paired tests and tie groups against hand-worked cases, scipy and known distributions."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

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


def people(count: int, frames: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, logits and subjects of people with so many pictures each; of some nearly all are recognised, of others
    hardly any, so that the accuracy over all people is 1/2."""
    rng = np.random.default_rng(seed)
    right = rng.random((count, frames)) < rng.beta(2, 2, count)[:, None]
    return *answers(right.ravel()), np.repeat(np.arange(count), frames)


def test_an_interval_around_certainty_is_wilsons():
    """All of 20 right is 1 / (1 + z^2 / 20) to 1 (worked by hand), none right the mirror image: no resample tells."""
    low = 1 / (1 + 1.959964**2 / 20)
    found = s.bootstrap_interval(*answers(np.ones(20, bool)), "accuracy")
    assert (found.value, found.low, found.high) == (1, pytest.approx(low, abs=1e-6), 1)
    found = s.bootstrap_interval(*answers(np.zeros(20, bool)), "accuracy")
    assert (found.value, found.low, found.high) == (0, 0, pytest.approx(1 - low, abs=1e-6))


def test_a_perfect_score_on_few_pictures_is_no_strict_rank():
    """20 and 16 of 20 right, which McNemar's test cannot tell apart (p = 1/8), share a rank."""
    (targets, best), (_, good) = (answers(np.arange(20) < hits) for hits in (20, 16))
    assert s.mcnemar(targets, best, good) == 0.125
    first, second = (s.bootstrap_interval(targets, one) for one in (best, good))
    assert s.tie_ranks([first.low, second.low], [first.high, second.high]).tolist() == [1, 1]


@pytest.mark.parametrize("accuracy", [0.9, 0.95, 0.98])
def test_intervals_of_few_pictures_cover_accuracies_near_certainty(accuracy):
    """Over all results that 20 pictures can give, weighed by their chances, 95 % intervals hold the truth in 95 %."""
    hits = np.arange(21)
    chances = np.array([math.comb(20, k) * accuracy**k * (1 - accuracy) ** (20 - k) for k in hits])
    found = [s.bootstrap_interval(*answers(np.arange(20) < k)) for k in hits]
    assert chances[[i.low <= accuracy <= i.high for i in found]].sum() >= 0.95


def test_wilsons_interval_worked_by_hand():
    """80 of 100 is 0.711 to 0.867 at 95 %; neither bound leaves 0..1."""
    assert s.wilson(0.8, 100) == pytest.approx((0.7112, 0.8666), abs=1e-4)
    assert s.wilson(1.0, 3)[1] <= 1
    assert s.wilson(0.0, 3)[0] >= 0


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
        assert (recall.low, recall.high) == pytest.approx(s.wilson(0.8, 50))
        assert (recall.low, recall.high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.03)
    assert np.isnan([third.value, third.low, third.high]).all()


def test_a_recall_of_a_hundred_per_cent_is_wilsons():
    """A class whose 20 pictures are all right, or all wrong, has a width; over people these alone do."""
    targets = np.repeat([0, 1, 2], 20)
    logits = np.eye(3)[[0] * 20 + [1] * 12 + [0] * 28]
    first, second, third = s.bootstrap_recalls(targets, logits)
    low, half = 1 / (1 + 1.959964**2 / 20), 1.96 * math.sqrt(0.6 * 0.4 / 20)
    assert (first.low, first.high, third.low, third.high) == pytest.approx((low, 1, 0, 1 - low), abs=1e-6)
    assert (second.low, second.high) == pytest.approx((0.6 - half, 0.6 + half), abs=0.04)
    people = np.tile(np.arange(20), 3)
    first, second, third = s.bootstrap_recalls(targets, logits, subjects=people)
    assert (first.low, first.high, third.low, third.high) == pytest.approx((low, 1, 0, 1 - low), abs=1e-6)
    assert (second.low, second.high) != pytest.approx(s.wilson(0.6, 20), abs=1e-3)


def test_intervals_over_people_cover_the_truth_and_over_their_pictures_do_not():
    """40 pictures each of 24 people: by person the 95 % interval holds the truth in 95 % of 200 cases, by picture in
    half of them."""
    covered = np.zeros(2)
    for seed in range(200):
        targets, logits, subjects = people(24, 40, seed)
        for index, known in enumerate((None, subjects)):
            found = s.bootstrap_interval(targets, logits, samples=200, seed=seed, subjects=known)
            covered[index] += found.low <= 0.5 <= found.high
    assert covered[0] / 200 < 0.6
    assert covered[1] / 200 == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 200))


@pytest.mark.parametrize("count", [5, 8])
def test_intervals_over_few_people_are_wide_enough(count):
    """Of as few people as DISFA's or TFEID's test splits hold, 95 % intervals hold the truth in nine of ten cases."""
    covered = 0
    for seed in range(200):
        targets, logits, subjects = people(count, 40, seed)
        found = s.bootstrap_interval(targets, logits, seed=seed, subjects=subjects)
        covered += found.low <= 0.5 <= found.high
    assert covered / 200 >= 0.88


def test_an_interval_over_people_does_not_depend_on_how_often_each_picture_stands_there():
    """Ten copies of every picture say nothing new: metrics, recalls and differences have the intervals of one."""
    (targets, logits), (_, other), who = noisy(60), noisy(60, seed=1), np.arange(60)
    many, ten, twin, tenfold = (np.repeat(one, 10, axis=0) for one in (targets, logits, other, who))
    plain = s.bootstrap_metrics(targets, logits, subjects=who, samples=200)
    copied = s.bootstrap_metrics(many, ten, subjects=tenfold, samples=200)
    recalls = s.bootstrap_recalls(targets, logits, subjects=who), s.bootstrap_recalls(many, ten, subjects=tenfold)
    difference = s.paired_difference(targets, logits, other, subjects=who)
    pairs = [*((plain[name], copied[name]) for name in m.METRICS), *zip(*recalls, strict=True)]
    pairs.append((difference, s.paired_difference(many, ten, twin, subjects=tenfold)))
    for one, same in pairs:
        assert (one.value, one.low, one.high) == pytest.approx((same.value, same.low, same.high), abs=1e-9)


@pytest.mark.parametrize("name", m.METRICS)
def test_the_fast_bootstrap_over_people_is_a_resampling_of_people(name):
    """Every metric's interval is that of a plain loop over resampled people of unequal numbers of pictures, at the
    percentiles that Student's t asks for."""
    targets, logits = noisy(300)
    subjects = np.sort(np.random.default_rng(4).integers(0, 30, 300))
    names, groups = np.unique(subjects), [np.flatnonzero(subjects == one) for one in np.unique(subjects)]
    found = s.bootstrap_interval(targets, logits, name, samples=400, seed=2, subjects=subjects)
    draws = []
    for drawn in np.random.default_rng(2).integers(0, len(names), size=(400, len(names))):
        chosen = np.concatenate([groups[one] for one in drawn])
        draws.append(m.METRICS[name](targets[chosen], logits[chosen]))
    draws = np.array(draws)
    if name == "ece":
        draws = np.maximum(draws - draws.mean() + m.ece(targets, logits), 0)
    count = len(names)
    tail = 100 * norm.cdf(-math.sqrt(count / (count - 1)) * t.ppf(0.975, count - 1))
    assert found.value == m.METRICS[name](targets, logits)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(draws, [tail, 100 - tail])), abs=1e-9)


def test_certainty_over_people_is_as_sure_as_the_people_are_many():
    """100 right pictures of five people are five cases, not 100; those of one person are one, right or half right."""
    targets, logits = answers(np.ones(100, bool))
    found = s.bootstrap_interval(targets, logits, subjects=np.arange(100) % 5)
    assert (found.low, found.high) == pytest.approx((1 / (1 + 1.959964**2 / 5), 1), abs=1e-6)
    recall = s.bootstrap_recalls(targets, logits, subjects=np.where(targets == 0, "S001", "S002"))[0]
    assert recall.low == pytest.approx(1 / (1 + 1.959964**2), abs=1e-6)
    half = s.bootstrap_interval(*answers(np.arange(100) < 50), subjects=np.zeros(100))
    assert (half.low, half.high) == pytest.approx(s.wilson(0.5, 1))


def test_subjects_must_be_as_many_as_the_pictures():
    """Subjects of another number than the pictures are a mistake, and said to be one."""
    targets, logits = noisy(20)
    for call in (s.bootstrap_metrics, s.bootstrap_recalls):
        with pytest.raises(ValueError, match=r"subjects of shape \(19,\) do not match 20 pictures"):
            call(targets, logits, subjects=np.arange(19))


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
    """A thousand resamples of 3,600 pictures and all metrics cost less than 3 s of computing."""
    targets, logits = noisy(3600)
    start = time.process_time()  # of this process alone: others may keep the machine busy
    found = s.bootstrap_metrics(targets, logits)
    assert time.process_time() - start < 3
    assert list(found) == list(m.METRICS)


def test_paired_difference_of_equal_models_is_zero_as_far_as_so_few_pictures_tell():
    """Two models that answer alike differ by nothing; agreement on 100 pictures leaves room for 3.7 % (Wilson)."""
    targets, logits = noisy(100)
    found = s.paired_difference(targets, logits, 2 * logits)
    share = 1.959964**2 / (100 + 1.959964**2)
    assert (found.value, found.low, found.high) == (0, pytest.approx(-share), pytest.approx(share))
    people = np.arange(100) % 4
    assert s.paired_difference(targets, logits, 2 * logits, subjects=people).high == pytest.approx(0.4899, abs=1e-4)
    right, wrong = np.eye(7)[targets], np.eye(7)[(targets + 1) % 7]
    best = s.paired_difference(targets, right, wrong)
    assert (best.value, best.low, best.high) == (1, pytest.approx(1 - share), 1)


def test_means_over_classes_have_a_width_where_all_resamples_agree():
    """Six of six right is not certain: balanced accuracy is as wide as Wilson's intervals of 2 of 2 are."""
    targets = np.arange(6) % 3
    found = s.bootstrap_metrics(targets, np.eye(3)[targets])
    for name in ("balanced_accuracy", "macro_f1"):
        assert (found[name].value, found[name].low, found[name].high) == (1, pytest.approx(0.34238, abs=1e-5), 1)
    always = s.bootstrap_metrics(targets, np.tile(np.eye(3)[0], (6, 1)))["balanced_accuracy"]
    assert always.value == pytest.approx(1 / 3)
    assert always.low < 0.31
    assert always.high > 0.49


def test_a_resample_without_a_class_is_none_of_a_mean_over_the_classes():
    """A class that one of ten people shows, and that is never recognised: no resample of all classes is above 1/2."""
    targets = np.array(([0] * 5) * 10 + [1] * 5)
    logits = np.vstack([np.eye(3)[[0] * 50], np.eye(3)[[2] * 5]])
    subjects = np.array([person for person in range(10) for _ in range(5)] + [0] * 5)
    found = s.bootstrap_metrics(targets, logits, ("balanced_accuracy", "macro_f1"), subjects=subjects)
    assert found["balanced_accuracy"].value == 0.5
    assert found["macro_f1"].value == pytest.approx(1 / 3)
    widths = {name: interval.high - interval.low for name, interval in found.items()}
    assert all(0 < width < 1 for width in widths.values())
    one = s.bootstrap_metrics(np.array([0] * 20 + [1]), np.vstack([np.eye(3)[[0] * 18 + [2] * 2], np.eye(3)[[2]]]))
    assert 0.37 < one["balanced_accuracy"].low < 0.45 < one["balanced_accuracy"].high <= 0.5
    # Ten classes of a picture each: a resample of all of them is one in 2756.
    ten = s.bootstrap_metrics(np.arange(10), np.eye(10)[[*range(9), 0]])["balanced_accuracy"]
    assert ten.low < 0.9 < ten.high


def test_the_level_holds_for_means_over_classes_too():
    """Where the recalls' intervals are theirs (all resamples agree), half as sure is narrower."""
    targets = np.arange(6) % 3
    half, most = (s.bootstrap_metrics(targets, np.eye(3)[targets], level=level) for level in (0.5, 0.95))
    for name in ("balanced_accuracy", "macro_f1"):
        assert most[name].low < half[name].low < 1


def test_one_picture_says_nothing_of_the_calibration_error():
    """Its own is some figure; of others it may be any."""
    found = s.bootstrap_metrics(np.array([0]), np.array([[0.4, 0.1]]))["ece"]
    assert (found.low, found.high) == (0, 1)
    assert 0 < found.value < 1


@pytest.mark.parametrize("shows", [2, 3, 4, 6])
def test_a_recall_over_few_people_covers_the_truth(shows):
    """Of 24 people some show the emotion, ten pictures each: 95 % intervals hold the true recall of 2/3 that often."""
    held, who = 0, np.repeat(np.arange(24), 10)
    targets = (who < shows).astype(int)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        right = rng.random(240) < rng.beta(4, 2, 24)[who]
        logits = np.eye(2)[np.where(right, targets, 1 - targets)]
        found = s.bootstrap_recalls(targets, logits, 200, seed, subjects=who)[1]
        held += found.low <= 2 / 3 <= found.high
    assert held >= 89  # of 95 on average fewer in one of a hundred such trials


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


def test_sign_flips_worked_by_hand():
    """Of three people the first model recognises 3 and 2 more pictures, and 1 fewer: sum 4. Of the eight sums with
    other signs (±6, ±4, ±2, 0, 0) four are as far from 0."""
    gains, subjects = [True] * 3 + [True] * 2 + [False], np.array(list("aaabbc"))
    targets, one = answers(np.array(gains))
    other = answers(~np.array(gains))[1]
    assert s.sign_flip(targets, one, other, subjects) == s.sign_flip(targets, other, one, subjects) == 4 / 8
    assert s.sign_flip(targets, one, one, subjects) == 1


def test_sign_flips_are_all_flips():
    """The p-value is that of going through all 2^9 flips of nine people's differences."""
    targets, first, subjects = people(9, 15, 0)
    _, second, _ = people(9, 15, 1)
    gains = [int((first.argmax(1) == targets)[subjects == one].sum()) for one in range(9)]
    gains = np.array(gains) - [int((second.argmax(1) == targets)[subjects == one].sum()) for one in range(9)]
    sums = [abs(np.dot(gains, signs)) for signs in itertools.product((-1, 1), repeat=9)]
    expected = np.mean(np.array(sums) >= abs(gains.sum()))
    assert 0 < expected < 1
    assert s.sign_flip(targets, first, second, subjects) == pytest.approx(expected, abs=1e-12)


def test_sign_flips_of_one_picture_each_are_mcnemars_test():
    """Where everybody has one picture, the two tests are the same."""
    (targets, first), (_, second) = (answers(np.random.default_rng(k).random(500) < 0.6) for k in (0, 1))
    expected = s.mcnemar(targets, first, second)
    assert s.sign_flip(targets, first, second, np.arange(500)) == pytest.approx(expected, rel=1e-9)


def test_models_that_suit_other_people_are_not_told_apart_more_often_than_said():
    """Two models that are as good over all people: of 200 pairs on 24 people McNemar's test tells four in ten apart,
    the sign flips one in twenty, and as often the paired interval over people leaves out 0."""
    alarms = np.zeros(3)
    for seed in range(200):
        (targets, first, subjects), (_, second, _) = people(24, 40, seed), people(24, 40, 10_000 + seed)
        found = s.paired_difference(targets, first, second, 200, seed, subjects=subjects)
        alarms += [
            s.mcnemar(targets, first, second) < 0.05,
            s.sign_flip(targets, first, second, subjects) < 0.05,
            not found.low <= 0 <= found.high,
        ]
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert alarms[0] / 200 > 0.35
    assert alarms[1] / 200 < most
    assert alarms[2] / 200 < most


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
