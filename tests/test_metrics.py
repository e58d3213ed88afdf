"""Metrics against scikit-learn and against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from fer_bench import metrics as m
from fer_bench.emotions import FOUR, SEVEN


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """500 pictures of 7 unevenly frequent classes, and logits that are right more often than not."""
    rng = np.random.default_rng(3)
    targets = rng.choice(7, 500, p=[0.3, 0.02, 0.1, 0.28, 0.1, 0.1, 0.1])
    logits = rng.normal(size=(500, 7))
    logits[np.arange(500), targets] += 1.5
    return targets, logits


# Four pictures, two classes of three present. Probabilities of class 1 over class 0 are chosen through log odds.
HAND_TARGETS = np.array([0, 0, 0, 1])
HAND_LOGITS = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]]))
"""Predictions 0, 0, 1, 1: three of four right."""


def test_accuracy_is_the_fraction_of_right_answers(answers):
    """Accuracy is 3 of 4 in the hand case and scikit-learn's elsewhere."""
    targets, logits = answers
    assert m.accuracy(HAND_TARGETS, HAND_LOGITS) == 0.75
    assert m.accuracy(targets, logits) == pytest.approx(sk.accuracy_score(targets, logits.argmax(1)), abs=1e-12)


def test_balanced_accuracy_averages_recall_over_present_classes(answers):
    """Recalls 2/3 and 1 average to 5/6; the class without pictures does not count."""
    targets, logits = answers
    assert m.balanced_accuracy(HAND_TARGETS, HAND_LOGITS) == pytest.approx(5 / 6)
    expected = sk.balanced_accuracy_score(targets, logits.argmax(1))
    assert m.balanced_accuracy(targets, logits) == pytest.approx(expected, abs=1e-12)


def test_macro_f1_averages_over_classes_that_occur(answers):
    """F1 of 4/5 and 2/3 average to 11/15; a class neither shown nor predicted does not count."""
    targets, logits = answers
    assert m.macro_f1(HAND_TARGETS, HAND_LOGITS) == pytest.approx(11 / 15)
    expected = sk.f1_score(targets, logits.argmax(1), average="macro")
    assert m.macro_f1(targets, logits) == pytest.approx(expected, abs=1e-12)


def test_macro_f1_counts_a_class_that_is_only_predicted_as_zero():
    """A class without pictures that is predicted anyway lowers macro F1, as in scikit-learn."""
    targets, logits = np.array([0, 0]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert m.macro_f1(targets, logits) == pytest.approx((2 / 3 + 0) / 2)
    assert m.macro_f1(targets, logits) == pytest.approx(sk.f1_score(targets, logits.argmax(1), average="macro"))


def test_per_class_recall_is_nan_for_absent_classes(answers):
    """Recall is 2/3, 1 and NaN in the hand case, and scikit-learn's where every class is present."""
    targets, logits = answers
    np.testing.assert_allclose(m.per_class_recall(HAND_TARGETS, HAND_LOGITS), [2 / 3, 1, np.nan])
    expected = sk.recall_score(targets, logits.argmax(1), average=None)
    np.testing.assert_allclose(m.per_class_recall(targets, logits), expected, atol=1e-12)


def test_confusion_matrix_has_true_rows(answers):
    """Row 0 of the hand case holds two right answers and one mistaken for class 1; scikit-learn agrees elsewhere."""
    targets, logits = answers
    assert m.confusion_matrix(HAND_TARGETS, HAND_LOGITS).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(m.confusion_matrix(targets, logits), sk.confusion_matrix(targets, logits.argmax(1)))


def test_a_confusion_matrix_gives_the_metrics_that_follow_from_it_alone(answers):
    """In the hand case accuracy is 3/4, recalls are 2/3 and 1, F1s 4/5 and 2/3; elsewhere each is its own function."""
    found = m.from_confusion(np.array([[2, 1, 0], [0, 1, 0], [0, 0, 0]]))
    expected = {"accuracy": 3 / 4, "balanced_accuracy": (2 / 3 + 1) / 2, "macro_f1": (4 / 5 + 2 / 3) / 2}
    assert found == pytest.approx(expected)
    found = m.from_confusion(m.confusion_matrix(*answers))
    assert found == pytest.approx({name: m.METRICS[name](*answers) for name in found})


def test_nll_is_the_mean_log_loss(answers):
    """The hand case gives -(ln .7 + ln .5 + ln .2 + ln .8) / 4; scikit-learn's log loss agrees elsewhere."""
    targets, logits = answers
    assert m.nll(HAND_TARGETS, HAND_LOGITS) == pytest.approx(-np.log(0.7 * 0.5 * 0.2 * 0.8) / 4)
    assert m.nll(targets, logits) == pytest.approx(sk.log_loss(targets, m.softmax(logits), labels=range(7)))


def test_nll_survives_very_large_logits():
    """A wrong answer 5,000 logits ahead costs 5,000 nats, not infinity."""
    assert m.nll(np.array([1]), np.array([[5000.0, 0.0]])) == pytest.approx(5000)


def test_ece_of_the_hand_case():
    """Bins hold {.7 right, .7 wrong}, {.5 right}, {.8 right}: gaps .4, .5 and .2 in sum over four pictures."""
    assert m.ece(HAND_TARGETS, HAND_LOGITS) == pytest.approx((0.4 + 0.5 + 0.2) / 4)


def test_a_calibrated_model_shows_the_ece_of_chance():
    """One picture at confidence .7 misses by .3 in seven cases of ten and by .7 in three: .42 on average; of answers
    whose targets are drawn from their own probabilities it is the ECE, and of sure ones it is none."""
    one = np.log([[0.7, 0.3]])
    assert m.ece_by_chance(one, draws=4000) == pytest.approx(0.42, abs=0.01)
    assert m.ece_by_chance(np.array([[100.0, 0.0]] * 9)) == pytest.approx(0, abs=1e-9)
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(350, 7))
    cumulated = m.softmax(logits).cumsum(1)
    drawn = [np.minimum((cumulated < rng.random((350, 1))).sum(1), 6) for _ in range(100)]
    measured = [m.ece(targets, logits) for targets in drawn]
    assert m.ece_by_chance(logits) == pytest.approx(np.mean(measured), abs=3 * np.std(measured) / 10)
    assert m.ece_by_chance(logits) == m.ece_by_chance(logits)


def test_calibration_bins_agree_with_scikit_learn(answers):
    """The filled bins hold scikit-learn's mean confidences and accuracies, and their weighted gaps are the ECE."""
    targets, logits = answers
    bins = m.calibration_bins(targets, logits)
    confidence, correct = m.softmax(logits).max(1), logits.argmax(1) == targets
    truth, predicted = calibration_curve(correct, confidence, n_bins=m.BINS, strategy="uniform")
    filled = bins.count > 0
    np.testing.assert_allclose(bins.accuracy[filled], truth)
    np.testing.assert_allclose(bins.confidence[filled], predicted)
    assert np.isnan(bins.accuracy[~filled]).all()
    assert bins.count.sum() == 500
    gaps = np.abs(bins.accuracy - bins.confidence)[filled]
    assert m.ece(targets, logits) == pytest.approx((gaps * bins.count[filled]).sum() / 500)


def test_a_certain_answer_falls_in_the_last_bin():
    """Confidence 1 belongs to the bin that ends at 1, and is perfectly calibrated where it is right."""
    bins = m.calibration_bins(np.array([0]), np.array([[1000.0, 0.0]]))
    assert bins.count.tolist() == [0] * 14 + [1]
    assert m.ece(np.array([0]), np.array([[1000.0, 0.0]])) == 0


def test_softmax_ignores_a_shift():
    """Logits ln 1, ln 2, ln 5 give 1/8, 2/8 and 5/8 whatever constant is added."""
    logits = np.log([[1.0, 2.0, 5.0]])
    np.testing.assert_allclose(m.softmax(logits + 900), [[0.125, 0.25, 0.625]])


def test_restricted_logits_renormalise_over_shared_emotions():
    """Probabilities over the shared emotions keep their proportions and sum to 1."""
    logits = np.log([[0.1, 0.05, 0.05, 0.4, 0.2, 0.1, 0.1]])
    kept = m.softmax(m.restrict_logits(logits, SEVEN, FOUR))
    np.testing.assert_allclose(kept, [[0.125, 0.5, 0.25, 0.125]])


def test_restricting_to_an_unknown_emotion_is_refused():
    """An emotion the model does not tell is named in the error."""
    with pytest.raises(ValueError, match="does not tell contempt"):
        m.restrict_logits(np.zeros((1, 7)), SEVEN, ("anger", "contempt"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", m.METRICS)
def test_logits_that_are_not_finite_are_refused(name, value):
    """Every metric refuses NaN and infinity and says which picture has them."""
    logits = np.zeros((3, 2))
    logits[1, 0] = value
    with pytest.raises(ValueError, match=r"1 picture\(s\) are not finite, the first at position 1"):
        m.METRICS[name](np.array([0, 1, 0]), logits)


@pytest.mark.parametrize(
    ("targets", "logits", "sentence"),
    [
        (np.array([0, 2]), np.zeros((2, 2)), "must lie in 0..1"),
        (np.array([0]), np.zeros((2, 2)), "must have shapes"),
        (np.array([0.0, 1.0]), np.zeros((2, 2)), "must be integers"),
        (np.zeros(0, int), np.zeros((0, 2)), "no pictures"),
    ],
)
def test_contradictory_inputs_are_refused(targets, logits, sentence):
    """Targets that do not fit the logits are refused with a sentence that says how."""
    with pytest.raises(ValueError, match=sentence):
        m.accuracy(targets, logits)


def test_directions_of_the_metrics():
    """Better answers move every metric in its stated direction."""
    targets = np.array([0, 1, 0, 1, 1])
    good = np.where(np.eye(2)[targets] > 0, 9.0, 0.0)
    poor = good.copy()
    poor[:2] = good[:2, ::-1]
    for name, metric in m.METRICS.items():
        better, worse = metric(targets, good), metric(targets, poor)
        assert (better > worse) == metric.higher_is_better, name
