"""Metrics: pure functions of targets (int (N,)) and logits (float (N, K)), tested against scikit-learn.

Every scalar metric is a sum over pictures followed by a closed formula (`Metric.parts`, `Metric.combine`). A bootstrap
resample is then one row of a matrix product, so that a thousand of them cost about as much as one evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BINS = 15
"""Equal-width confidence bins of the calibration figures (Guo et al., ICML 2017, section 3)."""
PROBABLE = 0.02
"""Greatest distance from 1 of the sum of numbers from 0 on that count as probabilities: rounding eight of them
moves it by 0.001 in float16 and by 0.016 in 8 bits."""
NOT_LOGITS = "answers with probabilities, not logits; remove its last Softmax or make it LogSoftmax."
"""What is said of a model whose answers `are_probabilities`, after its name."""


@dataclass(frozen=True)
class Metric:
    """A scalar metric; called with (targets, logits) it gives a float."""

    parts: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """(targets (N,), logits (N, K)) -> float64 (N, D): what each picture contributes."""
    combine: Callable[[np.ndarray], np.ndarray]
    """Sums over pictures (..., D) -> values (...)."""
    higher_is_better: bool
    resampling_bias: bool = False
    """True where the metric is larger on a resample than on the sample itself (a sum of absolute values)."""

    def __call__(self, targets: np.ndarray, logits: np.ndarray) -> float:
        return float(self.combine(self.parts(targets, logits).sum(axis=0)))


def checked(targets: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as int64 (N,) and float64 (N, K). Raises ValueError where they contradict each other or are not finite."""
    targets, logits = np.asarray(targets), np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(f"targets {targets.shape} and logits {logits.shape} must have shapes (N,) and (N, K)")
    if not len(targets):
        raise ValueError("there are no pictures to score")
    if not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(f"targets must be integers, not {targets.dtype}")
    if targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise ValueError(f"targets must lie in 0..{logits.shape[1] - 1}, the columns of the logits")
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise ValueError(f"the logits of {len(broken)} picture(s) are not finite, the first at position {broken[0]}")
    return targets.astype(np.int64), logits


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """float (N, K) -> float64 (N, K), rows summing to 1. Raises ValueError where a logit is not finite."""
    logits = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise ValueError("the logits are not all finite")
    return np.exp(_log_softmax(logits))


def are_probabilities(answers: np.ndarray) -> bool:
    """Whether answers (N, K) are probabilities, as 0 to 1 or in per cent: a softmax over them would be a false one."""
    if not len(answers) or not (answers >= 0).all():
        return False
    sums = answers.sum(axis=1, dtype=np.float64)
    return any(np.abs(sums / whole - 1).max() <= PROBABLE for whole in (1, 100))


def restrict_logits(logits: np.ndarray, emotions: Sequence[str], shared: Sequence[str]) -> np.ndarray:
    """The columns of the `shared` emotions, in that order: (N, len(emotions)) -> (N, len(shared)).

    A softmax over these columns is the probability renormalised over the shared emotions.
    Raises ValueError where an emotion is not among `emotions` or the columns do not match them.
    """
    if logits.shape[1] != len(emotions):
        raise ValueError(f"{logits.shape[1]} columns of logits do not match {len(emotions)} emotions")
    missing = [emotion for emotion in shared if emotion not in emotions]
    if missing:
        raise ValueError(f"the model does not tell {', '.join(missing)}; it tells {', '.join(emotions)}")
    return logits[:, [list(emotions).index(emotion) for emotion in shared]]


def confusion_parts(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """(N, K*K), one 1 per row at (target, prediction): the summed rows are a flat confusion matrix."""
    targets, logits = checked(targets, logits)
    classes = logits.shape[1]
    parts = np.zeros((len(targets), classes * classes))
    parts[np.arange(len(targets)), targets * classes + logits.argmax(axis=1)] = 1
    return parts


def _square(sums: np.ndarray) -> np.ndarray:
    classes = math.isqrt(sums.shape[-1])
    return sums.reshape(*sums.shape[:-1], classes, classes)


def _diagonal(sums: np.ndarray) -> np.ndarray:
    return np.diagonal(_square(sums), axis1=-2, axis2=-1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def class_counts(sums: np.ndarray) -> np.ndarray:
    """Flat confusion matrices (..., K*K) -> pictures of each class (..., K)."""
    return _square(sums).sum(axis=-1)


def recall_from(sums: np.ndarray) -> np.ndarray:
    """Flat confusion matrices (..., K*K) -> recalls (..., K), NaN for a class without pictures."""
    return _ratio(_diagonal(sums), class_counts(sums))


def _accuracy(sums: np.ndarray) -> np.ndarray:
    return _diagonal(sums).sum(axis=-1) / sums.sum(axis=-1)


def _balanced_accuracy(sums: np.ndarray) -> np.ndarray:
    return np.nanmean(recall_from(sums), axis=-1)


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    matrix = _square(sums)
    return np.nanmean(_ratio(2 * _diagonal(sums), matrix.sum(axis=-1) + matrix.sum(axis=-2)), axis=-1)


def from_confusion(matrix: np.ndarray) -> dict[str, float]:
    """The metrics that a confusion matrix (K, K) alone gives, by name, so that a stated one can be checked."""
    sums = np.asarray(matrix, dtype=np.float64).ravel()
    kinds = {"accuracy": _accuracy, "balanced_accuracy": _balanced_accuracy, "macro_f1": _macro_f1}
    return {name: float(kind(sums)) for name, kind in kinds.items()}


def _surprisal(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """(N, 2): minus the log of the target's probability, and 1."""
    targets, logits = checked(targets, logits)
    own = -_log_softmax(logits)[np.arange(len(targets)), targets]
    return np.stack([own, np.ones(len(targets))], axis=1)


def _nll(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _top_label(targets: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per picture: bin (int, 0..BINS-1; bins are open below and closed above), confidence, correct (bool)."""
    targets, logits = checked(targets, logits)
    confidence = softmax(logits).max(axis=1)
    edges = np.linspace(0, 1, BINS + 1)
    return np.digitize(confidence, edges[1:-1], right=True), confidence, logits.argmax(axis=1) == targets


def _gaps(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """(N, BINS + 1): confidence minus correctness in the picture's own bin, and 1 in the last column."""
    bins, confidence, correct = _top_label(targets, logits)
    parts = np.zeros((len(bins), BINS + 1))
    parts[np.arange(len(bins)), bins] = confidence - correct
    parts[:, BINS] = 1
    return parts


def _ece(sums: np.ndarray) -> np.ndarray:
    return np.abs(sums[..., :BINS]).sum(axis=-1) / sums[..., BINS]


METRICS: dict[str, Metric] = {
    "accuracy": Metric(confusion_parts, _accuracy, higher_is_better=True),
    "balanced_accuracy": Metric(confusion_parts, _balanced_accuracy, higher_is_better=True),
    "macro_f1": Metric(confusion_parts, _macro_f1, higher_is_better=True),
    "nll": Metric(_surprisal, _nll, higher_is_better=False),
    "ece": Metric(_gaps, _ece, higher_is_better=False, resampling_bias=True),
}
"""The scalar metrics by name; all are fractions but `nll`, which is in nats."""


def accuracy(targets: np.ndarray, logits: np.ndarray) -> float:
    """Fraction of pictures whose largest logit is the target's (the first where several are equal)."""
    return METRICS["accuracy"](targets, logits)


def balanced_accuracy(targets: np.ndarray, logits: np.ndarray) -> float:
    """Mean recall over the classes that have pictures."""
    return METRICS["balanced_accuracy"](targets, logits)


def macro_f1(targets: np.ndarray, logits: np.ndarray) -> float:
    """Mean F1 over the classes that occur among the targets or the predictions (scikit-learn's rule)."""
    return METRICS["macro_f1"](targets, logits)


def nll(targets: np.ndarray, logits: np.ndarray) -> float:
    """Mean negative log-likelihood of the target, in nats."""
    return METRICS["nll"](targets, logits)


def ece(targets: np.ndarray, logits: np.ndarray) -> float:
    """Expected calibration error of the top label over 15 equal-width bins (Guo et al., ICML 2017, eq. 3)."""
    return METRICS["ece"](targets, logits)


def ece_by_chance(logits: np.ndarray, draws: int = 200, seed: int = 0) -> float:
    """The mean ECE of a perfectly calibrated model with the confidences of these logits (N, K), in `draws` samples.

    It is not 0, since each bin's accuracy is that of few pictures: some 6 % on 350 pictures, 2 % on 3,500.
    """
    logits = np.asarray(logits, dtype=np.float64)
    bins, confidence, _ = _top_label(np.zeros(len(logits), dtype=np.int64), logits)
    rng, parts = np.random.default_rng(seed), np.zeros((draws, BINS))
    for draw in range(draws):
        gaps = confidence - (rng.random(len(confidence)) < confidence)
        parts[draw] = np.bincount(bins, gaps, minlength=BINS)
    return float(np.abs(parts).sum(1).mean() / len(confidence))


def confusion_matrix(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """int64 (K, K): rows are true classes, columns predictions."""
    return _square(confusion_parts(targets, logits).sum(axis=0)).astype(np.int64)


def per_class_recall(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """float64 (K,): fraction of each class's pictures that were recognised; NaN for a class without pictures."""
    return recall_from(confusion_parts(targets, logits).sum(axis=0))


class CalibrationBins(NamedTuple):
    """A reliability diagram's numbers."""

    edges: np.ndarray
    """(BINS + 1,), 0..1."""
    count: np.ndarray
    """int64 (BINS,): pictures whose top probability falls in the bin."""
    confidence: np.ndarray
    """(BINS,): their mean top probability; NaN for an empty bin."""
    accuracy: np.ndarray
    """(BINS,): the fraction of them that is right; NaN for an empty bin."""


def calibration_bins(targets: np.ndarray, logits: np.ndarray) -> CalibrationBins:
    """The bins behind `ece`."""
    bins, confidence, correct = _top_label(targets, logits)
    count, summed, right = (np.bincount(bins, w, BINS) for w in (None, confidence, correct.astype(np.float64)))
    return CalibrationBins(np.linspace(0, 1, BINS + 1), count, _ratio(summed, count), _ratio(right, count))
