"""Samples of a split and intervals of means over them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fer_bench.sampling import mean_interval, percentile_interval, resampled_means, stratified
from fer_bench.statistics import bootstrap_interval


def test_a_sample_keeps_the_proportions_of_the_classes() -> None:
    """A tenth of 700 + 200 + 100 pictures holds 70, 20 and 10 of them, distinct and in order."""
    labels = np.repeat([2, 0, 1], (700, 200, 100))
    chosen = stratified(labels, 100, seed=3)
    assert np.bincount(labels[chosen]).tolist() == [20, 10, 70]
    assert np.all(np.diff(chosen) > 0)


@pytest.mark.parametrize("sizes", [(3, 55, 111, 331), (1000, *[10] * 7), (200, *[20] * 6)])
def test_no_share_is_off_by_a_whole_picture(sizes: tuple[int, ...]) -> None:
    """Whatever the numbers, exactly `count` are drawn, and each class is within one picture of its proportion."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for count in range(1, len(labels)):
        drawn = np.bincount(labels[stratified(labels, count)], minlength=len(sizes))
        assert drawn.sum() == count
        assert np.all(np.abs(drawn - count * np.array(sizes) / len(labels)) < 1)


@pytest.mark.parametrize(
    ("count", "places", "digest"),
    [(70, [26, 125, 151, 174], "6f0f1d44d0f5403c"), (350, [1, 26, 35, 42], "cdb4cf81ae607416")],
)
def test_the_board_keeps_its_samples(count: int, places: list[int], digest: str) -> None:
    """Records are measured on these very pictures: with FER2013's class sizes the draw is what it has always been."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(7), (491, 55, 528, 879, 594, 416, 626)))
    chosen = stratified(labels, count)
    assert chosen[: len(places)].tolist() == places
    assert hashlib.sha256(repr(chosen.tolist()).encode()).hexdigest()[:16] == digest


def test_the_seed_draws_the_sample() -> None:
    """The same seed draws the same pictures, another one others; a count that is large enough, or None, takes all."""
    labels = np.zeros(50, np.int64)
    assert np.array_equal(stratified(labels, 10, 1), stratified(labels, 10, 1))
    assert not np.array_equal(stratified(labels, 10, 1), stratified(labels, 10, 2))
    for count in (50, 80, None):
        assert stratified(labels, count).tolist() == list(range(50))


def test_columns_share_their_resamples() -> None:
    """Two columns that always differ by one do so in every resample, and the means scatter about the sample's."""
    values = np.random.default_rng(0).random((200, 1))
    means = resampled_means(np.hstack([values, values + 1]), seed=5)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 1)
    assert means[:, 0].mean() == pytest.approx(values.mean(), abs=0.005)
    assert means[:, 0].std() == pytest.approx(values.std() / np.sqrt(200), rel=0.1)


def test_the_interval_of_a_mean_is_that_of_accuracy() -> None:
    """For right and wrong answers it agrees with the bootstrap interval of the accuracy, up to its own scatter."""
    right = np.arange(300) % 3 > 0
    found = mean_interval(right)
    other = bootstrap_interval(np.zeros(300, np.int64), np.stack([right, ~right], 1).astype(float))
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.012)
    assert percentile_interval(0.5, np.array([np.nan, 0.5, 0.5])).low == 0.5


def test_intervals_of_means_are_over_people_where_these_are_known() -> None:
    """24 people of 40 pictures each, whose means differ: by person 95 % intervals hold the truth in 95 % of 200 cases,
    by picture in hardly half of them."""
    covered = np.zeros(2)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values, who = (rng.normal(0, 1, (24, 1)) + rng.normal(0, 1, (24, 40))).ravel(), np.arange(960) // 40
        for index, subjects in enumerate((None, who)):
            found = mean_interval(values, seed, subjects)
            covered[index] += found.low <= 0 <= found.high
    assert covered[0] / 200 < 0.6
    assert covered[1] / 200 == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 200))


def test_where_all_resamples_agree_a_fraction_has_wilsons_interval() -> None:
    """All of 70 right is not certain; of seven people it is seven cases. A mean of other values has no width then."""
    right = np.ones(70, bool)
    for subjects, cases in ((None, 70), (np.arange(70) % 7, 7)):
        found = mean_interval(right, subjects=subjects)
        assert (found.value, found.low, found.high) == (1, pytest.approx(1 / (1 + 1.959964**2 / cases)), 1)
    even = mean_interval(np.full(70, 0.5))
    assert (even.low, even.high) == (0.5, 0.5)


def test_people_with_many_pictures_count_for_more() -> None:
    """Resampled means are those over the drawn people's pictures: of 9 pictures of one and 1 of another 0.9 or 0 or 1,
    with the chances 1/2, 1/4 and 1/4."""
    means = resampled_means(np.repeat([[1.0], [0.0]], (9, 1), axis=0), subjects=np.repeat(["a", "b"], (9, 1)))
    found, counts = np.unique(means.round(9), return_counts=True)
    assert found.tolist() == [0, 0.9, 1]
    assert counts / 1000 == pytest.approx([0.25, 0.5, 0.25], abs=0.05)


def test_a_mean_of_one_picture_may_be_anything_of_others() -> None:
    """Its interval is what a value can be; a fraction's is Wilson's, and that of two pictures the bootstrap's."""
    gain = mean_interval(np.array([0.3]), span=(-1, 1))
    assert (gain.value, gain.low, gain.high) == (0.3, -1, 1)
    right = mean_interval(np.array([True]), span=(0, 1))
    assert 0.2 < right.low < right.high == 1
    two = mean_interval(np.array([0.3, 0.5]), span=(-1, 1))
    assert (two.low, two.high) == (0.3, 0.5)
