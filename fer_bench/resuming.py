"""Rows of an interrupted evaluation that need no second one (`evaluate --resume`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fer_bench.cards import Track
from fer_bench.datasets import FaceSet
from fer_bench.emotions import shared
from fer_bench.infer import Model
from fer_bench.results import ResultError, read_result, result_path
from fer_bench.robustness import SUITE
from fer_bench.statistics import several


def stands(
    model: Model,
    faces: FaceSet,
    track: Track,
    out: Path,
    tta: str = "none",
    verified: bool = False,
    robustness: bool = False,
    explanation: bool = False,
) -> bool:
    """Whether the record in `out` is all that judging the model, `recorded`, on the pictures would give once more.

    So it is of the same weights, pictures, people, emotions, protocol and test-time augmentation, has its answers
    beside it, and holds what is asked for: robustness (to today's corruptions), explanation, the mark of the
    maintainers. A record that cannot be read is none: it is measured anew.
    """
    path = result_path(out, track.name, model.name, model.record["recipe"], model.record["seed"], tta)
    try:
        before = read_result(path)
    except ResultError:
        return False
    emotions = shared(model.emotions, faces.emotions)
    scored = faces.restrict(emotions)
    people = several(scored.subjects)
    measured = (before.weights.sha256, before.protocol, before.tta, before.emotions, before.data.hash, before.subjects)
    asked = (model.record["sha256"], track.hash(), tta, emotions, scored.content_hash())
    return (
        measured == (*asked, None if people is None else len(np.unique(people)))
        and path.with_suffix(".npz").is_file()
        and (before.verified or not verified)
        and (not robustness or (before.robustness is not None and before.robustness.suite == SUITE))
        and (not explanation or before.explanation is not None)
    )
