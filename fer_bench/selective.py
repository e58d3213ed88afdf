"""Selective prediction: how far a method's own confidence tells its right answers from its wrong ones.

A method that may keep silent answers the pictures that it is surest of. *Coverage* is the share that it answers, *risk*
the share of wrong ones among these (Geifman & El-Yaniv, NeurIPS 2017, arXiv 1705.08500, section 2); the area under that
curve (AURC: Geifman, Uziel & El-Yaniv, ICLR 2019, arXiv 1805.08206) is the mean risk over all coverages. Confidence is
the likeliest emotion's probability. Pure functions of targets (int (N,)) and logits (float (N, K)), as in `metrics`.
"""

from __future__ import annotations

import math

import numpy as np

from fer_bench.metrics import checked, softmax


def risk_coverage(targets: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and risk, float64 (N,) each, where the 1, 2, … N surest pictures are answered; fractions.

    Pictures of the same confidence are answered in no order: risk is the mean over all orders of them, so that the
    order of the pictures does not matter. Raises ValueError as `metrics.checked`.
    """
    targets, logits = checked(targets, logits)
    _, tie, size = np.unique(-softmax(logits).max(axis=1), return_inverse=True, return_counts=True)
    wrong = np.bincount(tie, logits.argmax(axis=1) != targets)
    ends, errors = np.cumsum(size), np.cumsum(wrong)
    answered = np.arange(1, len(targets) + 1)
    group = np.searchsorted(ends, answered)  # of equal confidence, that of the last picture which is answered
    still = (ends[group] - answered) / size[group]
    return answered / len(targets), (errors[group] - still * wrong[group]) / answered


def aurc(targets: np.ndarray, logits: np.ndarray) -> float:
    """Area under the risk-coverage curve, a fraction: the mean of the risks at 1, 2, … N answers; less is better.

    A method whose confidence says nothing has its error rate. Raises ValueError as `metrics.checked`.
    """
    return float(risk_coverage(targets, logits)[1].mean())


def accuracy_at(targets: np.ndarray, logits: np.ndarray, coverage: float = 0.8) -> float:
    """Accuracy on the surest pictures, the fewest that are `coverage` of them; a fraction.

    Raises ValueError where coverage is not above 0 and at most 1, and as `metrics.checked`.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must be above 0 and at most 1, not {coverage}")
    risk = risk_coverage(targets, logits)[1]
    answered = math.ceil(round(coverage * len(risk), 6))  # 0.7 * 10 is a little above 7
    return float(1 - risk[max(answered, 1) - 1])
