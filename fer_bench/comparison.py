"""Two models over the same pictures: how far apart they are, how sure that is, and where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_bench.errors import UserError
from fer_bench.metrics import checked
from fer_bench.results import Logits, Result, read_logits, result_path
from fer_bench.statistics import Interval, mcnemar, paired_difference

LEVEL = 0.05
"""Two models are told apart where McNemar's p is below this."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What two models answered over the same N pictures of K emotions."""

    emotions: tuple[str, ...]
    difference: Interval
    """Accuracy of the first minus that of the second, fractions, with its paired 95 % bootstrap interval."""
    p_value: float
    """McNemar's exact two-sided p-value that both err equally often."""
    agreement: np.ndarray
    """int64 (K, K): rows are the first model's answers, columns the second's."""
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    ids: tuple[str, ...]
    """N sample names."""
    targets: np.ndarray
    """int64 (N,), indices into `emotions`."""
    first: np.ndarray
    """int64 (N,): the first model's answers."""
    second: np.ndarray
    """int64 (N,): the second's."""

    @property
    def pictures(self) -> int:
        return len(self.targets)

    @property
    def disagree(self) -> np.ndarray:
        """int64 (M,): positions of the pictures that the two answer differently, in order."""
        return np.flatnonzero(self.first != self.second)

    def sentence(self, first: str, second: str) -> str:
        """The verdict in plain words; `first` and `second` are the two models' names, written as they are given.

        McNemar's test and the interval, read to a tenth of a point, nearly always agree; where not, both are said.
        """
        bounds = (self.difference.value, self.difference.low, self.difference.high)
        value, low, high = (round(100 * bound, 1) + 0.0 for bound in bounds)  # + 0.0: no "-0.0"
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        total = f"{self.pictures:,} pictures"
        significant, apart = self.p_value < LEVEL, low > 0 or high < 0
        if significant != apart:
            holds = "leaves out 0" if apart else "touches 0" if 0 in (low, high) else "holds 0"
            finds = "a difference" if significant else "none"
            return (
                f"{first} and {second} are hard to tell apart on these {total}: their accuracies differ by "
                f"{value:+.1f} points, and the 95 % interval, {low:+.1f} to {high:+.1f}, {holds}, while McNemar's test "
                f"finds {finds} ({p})."
            )
        if not significant:
            return (
                f"{first} and {second} cannot be told apart on these {total}: their accuracies differ by "
                f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}; McNemar {p})."
            )
        better, worse, sign = (first, second, 1) if value > 0 else (second, first, -1)
        low, high = sorted((sign * low, sign * high))
        return (
            f"They differ by {abs(value):.1f} points (95 % interval {low:.1f} to {high:.1f}): {better} recognises more "
            f"of these {total} than {worse}, and chance alone does not explain it (McNemar {p})."
        )


def compare(
    targets: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    emotions: Sequence[str],
    ids: Sequence[str] | None = None,
) -> Comparison:
    """Compare two models' logits (float (N, K) each) over the same pictures.

    targets: int (N,), indices into `emotions` (K names). ids: N sample names, by default their positions.
    Raises ValueError where shapes contradict each other.
    """
    targets, first = checked(targets, first)
    _, second = checked(targets, second)
    if not first.shape[1] == second.shape[1] == len(emotions):
        raise ValueError(f"logits {first.shape} and {second.shape} do not match {len(emotions)} emotions")
    names = tuple(map(str, range(len(targets)) if ids is None else ids))
    if len(names) != len(targets):
        raise ValueError(f"{len(names)} ids do not match {len(targets)} pictures")
    one, other = first.argmax(axis=1), second.argmax(axis=1)
    agreement = np.zeros((len(emotions), len(emotions)), dtype=np.int64)
    np.add.at(agreement, (one, other), 1)
    right, also = one == targets, other == targets
    return Comparison(
        emotions=tuple(emotions),
        difference=paired_difference(targets, first, second),
        p_value=mcnemar(targets, first, second),
        agreement=agreement,
        both_right=int((right & also).sum()),
        only_first=int((right & ~also).sum()),
        only_second=int((also & ~right).sum()),
        both_wrong=int((~right & ~also).sum()),
        ids=names, targets=targets, first=one, second=other,
    )  # fmt: skip


def compare_logits(first: Logits, second: Logits, emotions: Sequence[str]) -> Comparison:
    """Compare two results' saved answers, aligned by sample id: the order may differ, the pictures may not.

    Raises UserError, in one sentence, where they are not the same pictures with the same labels.
    """
    one, other = np.argsort(first.ids), np.argsort(second.ids)
    if not np.array_equal(first.ids[one], second.ids[other]):
        common = len(np.intersect1d(first.ids, second.ids))
        raise UserError(
            f"They were measured on different pictures ({len(first.ids):,} and {len(second.ids):,}, of which "
            f"{common:,} are the same), so they cannot be compared; evaluate both on the same data."
        )
    there = np.empty(len(one), dtype=np.int64)
    there[one] = other  # the second's position of the first's picture
    if not np.array_equal(first.targets, second.targets[there]):
        raise UserError(
            "They were measured with different labels for the same pictures, so they cannot be compared; "
            "evaluate both on the same data."
        )
    return compare(first.targets, first.logits, second.logits[there], emotions, first.ids.tolist())


def compare_results(root: Path | str, first: Result, second: Result) -> Comparison:
    """Compare two results by the logits that stand beside them under `root` (the leaderboard's folder).

    Raises UserError, in one sentence, where they were measured on different tracks, emotions or pictures; ResultError
    (a UserError) where the logits of one are missing or broken.
    """
    if first.track != second.track or first.data.hash != second.data.hash:
        raise UserError(
            "They were measured on different pictures, so they cannot be compared; evaluate both on the same data."
        )
    if first.emotions != second.emotions:
        raise UserError(
            f"They tell different emotions ({', '.join(first.emotions)}; {', '.join(second.emotions)}), "
            "so they cannot be compared."
        )
    logits = [read_logits(result_path(root, r.track, r.method, r.recipe, r.seed, r.tta)) for r in (first, second)]
    for result, found in zip((first, second), logits, strict=True):
        if found.logits.shape[1] != len(result.emotions):
            raise UserError(f"The saved logits of {result.method} do not match its emotions; evaluate it again.")
    return compare_logits(*logits, first.emotions)
