"""The answers that lie beside a board's results: read, checked against their records, put side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fer_bench.errors import UserError
from fer_bench.metrics import confusion_matrix
from fer_bench.results import Logits, Result, read_logits, result_path


def answers_of(root: Path | str, result: Result) -> Logits:
    """The logits that stand beside a result under `root` (the leaderboard's folder).

    Raises UserError, in one sentence, where they are not those that its figures were measured on; ResultError (a
    UserError) where they are missing or broken.
    """
    place = result_path(root, result.track, result.method, result.recipe, result.seed, result.tta)
    found = read_logits(place)
    if found.logits.shape[1] != len(result.emotions):
        raise UserError(f"The saved logits of {result.method} do not match its emotions; evaluate it again.")
    if not np.array_equal(confusion_matrix(found.targets, found.logits), result.confusion_matrix):
        raise UserError(
            f"The saved logits of {result.method} are not those that its record was measured on; evaluate it again."
        )
    return found


def comparable(first: Result, second: Result) -> None:
    """Raise UserError, in one sentence, where two results are of different tracks, pictures or emotions."""
    if first.track != second.track or first.data.hash != second.data.hash:
        raise UserError(
            "They were measured on different pictures, so they cannot be compared; evaluate both on the same data."
        )
    if first.emotions != second.emotions:
        raise UserError(
            f"They tell different emotions ({', '.join(first.emotions)}; {', '.join(second.emotions)}), "
            "so they cannot be compared."
        )


def places_in(first: Logits, second: Logits) -> np.ndarray:
    """int64 (N,): where the second's answers have the first's pictures, by sample id; their order may differ.

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
    there[one] = other
    if not np.array_equal(first.targets, second.targets[there]):
        raise UserError(
            "They were measured with different labels for the same pictures, so they cannot be compared; "
            "evaluate both on the same data."
        )
    return there


def people_in(first: Logits, second: Logits, there: np.ndarray) -> np.ndarray | None:
    """Whom the first's pictures show, which an older file of the two may not tell. there: what `places_in` gives."""
    if first.subjects is None and second.subjects is not None:
        return second.subjects[there]
    return first.subjects
