"""Risk and coverage: against cases worked by hand, and against all orders of tied pictures."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from fer_bench.metrics import accuracy
from fer_bench.selective import accuracy_at, aurc, risk_coverage


def answers(confidences: list[float], right: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Targets and logits of three emotions whose likeliest is the first, with these probabilities."""
    sure = np.array(confidences)[:, None]
    logits = np.log(np.concatenate([sure, (1 - sure) / 2, (1 - sure) / 2], axis=1))
    return np.where(right, 0, 1), logits


def test_a_curve_worked_by_hand() -> None:
    """Surest first: right, wrong, right, right; risks 0, 1/2, 1/3, 1/4."""
    coverage, risk = risk_coverage(*answers([0.6, 0.9, 0.5, 0.8], [True, True, True, False]))
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 4])
    assert aurc(*answers([0.6, 0.9, 0.5, 0.8], [True, True, True, False])) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_ties_are_the_mean_over_all_their_orders() -> None:
    """The risk is what answering pictures of one confidence in every possible order gives on average."""
    confidences, right = [0.9, 0.7, 0.7, 0.7, 0.5], [True, False, True, False, True]
    curves = []
    for middle in permutations(right[1:4]):
        wrong = ~np.array([right[0], *middle, right[4]])
        curves.append(np.cumsum(wrong) / np.arange(1, 6))
    np.testing.assert_allclose(risk_coverage(*answers(confidences, right))[1], np.mean(curves, axis=0))


def test_the_order_of_the_pictures_does_not_matter() -> None:
    """Saved logits have ties; shuffled, they give the same curve to the last bit."""
    rng = np.random.default_rng(0)
    logits = rng.integers(-2, 1, (400, 4)).astype(np.float16)
    targets = rng.integers(0, 4, 400)
    curve = risk_coverage(targets, logits)[1]
    for _ in range(5):
        order = rng.permutation(400)
        np.testing.assert_array_equal(risk_coverage(targets[order], logits[order])[1], curve)


def test_without_ties_it_is_the_sorted_pictures_running_error() -> None:
    """As others compute it: pictures sorted by confidence, errors summed up, divided by how many there are."""
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(500, 7)), rng.integers(0, 7, 500)
    exponentials = np.exp(logits)
    order = np.argsort(-(exponentials / exponentials.sum(1, keepdims=True)).max(1))
    wrong = (logits.argmax(1) != targets)[order]
    running = np.cumsum(wrong) / np.arange(1, 501)
    np.testing.assert_allclose(risk_coverage(targets, logits)[1], running)
    assert aurc(targets, logits) == pytest.approx(running.mean())


def test_a_confidence_that_says_nothing_has_the_error_rate() -> None:
    """Where all are equally sure, every coverage has the same risk, and AURC is it."""
    targets, logits = answers([0.8] * 10, [True] * 7 + [False] * 3)
    np.testing.assert_allclose(risk_coverage(targets, logits)[1], 0.3)
    assert aurc(targets, logits) == pytest.approx(0.3)


def test_accuracy_on_the_surest() -> None:
    """Of ten pictures 0.8 are the eight surest, 0.7 seven and 0.75 eight; all of them give the plain accuracy."""
    targets, logits = answers([0.95 - i / 50 for i in range(10)], [True] * 7 + [False] * 3)
    assert accuracy_at(targets, logits) == pytest.approx(7 / 8)
    assert accuracy_at(targets, logits, 0.7) == 1
    assert accuracy_at(targets, logits, 0.75) == pytest.approx(7 / 8)
    assert accuracy_at(targets, logits, 1) == pytest.approx(accuracy(targets, logits))
    assert accuracy_at(targets, logits, 1e-9) == 1


@pytest.mark.parametrize("coverage", [0, -0.1, 1.01, float("nan")])
def test_a_coverage_that_is_none_is_refused(coverage: float) -> None:
    """The sentence names the value."""
    with pytest.raises(ValueError, match=f"coverage must be above 0 and at most 1, not {coverage}"):
        accuracy_at(*answers([0.9], [True]), coverage)


def test_targets_come_first_as_in_metrics() -> None:
    """The other way round is refused, not computed."""
    targets, logits = answers([0.9, 0.8], [True, False])
    with pytest.raises(ValueError, match="must have shapes"):
        risk_coverage(logits, targets)
