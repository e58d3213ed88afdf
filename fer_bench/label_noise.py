"""FER2013's labels beside what FER+'s ten raters saw in the same pictures: where a row's errors may be the label's.

For figures of rows on `fer2013` from their saved answers; it needs a copy of FER2013 with FER+'s votes, and no model.
What both agree on is also what is easy to see: that accuracy is higher there is not all the labels' doing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from fer_bench.datasets import data_folder, load_dataset
from fer_bench.datasets.fer2013_copies import VOTES, read
from fer_bench.emotions import SEVEN
from fer_bench.errors import DataError, UserError
from fer_bench.registry import UnknownNameError

RULES = ("majority", "plurality")


def agreed(
    ids: Sequence[str] | np.ndarray,
    rule: Literal["majority", "plurality"] = "majority",
    split: str = "test",
    root: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """bool (N,): whether FER2013's label of each picture is what FER+'s raters saw.

    ids: names of pictures of FER2013, as `load_answers("fer2013", METHOD).ids` has them. rule: "majority" is FER+'s own
    (single votes dropped, the label holds more than half of what is left: the `ferplus` track's pictures under the same
    emotion; 59 % of the test pictures); "plurality" asks that the label has more of the ten votes than any other
    answer, contempt, unknown and no face among these (61 %; with ties broken by the order of the votes, 62 %). Where
    FER+ has no votes for a picture nobody agreed. root: the folder of the copy, where it is not under `$FER_BENCH_DATA`
    or ./data. Raises DataError where the pictures or the votes are missing, UserError for ids that are none of the
    split's, and UnknownNameError for a rule that is none.
    """
    if rule not in RULES:
        raise UnknownNameError(f"there is no rule {rule!r}; the rules are: {', '.join(RULES)}.")
    faces = load_dataset("fer2013", split, root)
    if rule == "majority":
        voted = load_dataset("ferplus", split, root)
        seen = {name: voted.emotions[label] for name, label in zip(voted.ids, voted.labels, strict=True)}
        right = [seen.get(name) == SEVEN[label] for name, label in zip(faces.ids, faces.labels, strict=True)]
    else:
        right = _most_voted(Path(root) if root is not None else data_folder("fer2013"), split, faces.labels).tolist()
    known = dict(zip(map(_plain, faces.ids), right, strict=True))
    names = [_plain(str(name)) for name in ids]
    if strange := [name for name in names if name not in known]:
        raise UserError(
            f"{len(strange):,} of {len(names):,} ids are no pictures of FER2013's {split} split, the first is "
            f"{strange[0]!r}; its ids are such as {faces.ids[0]!r}."
        )
    return np.array([known[name] for name in names], dtype=bool)


def _plain(name: str) -> str:
    """Some copies' names have zeros before the row's number."""
    return re.sub("_0+(?=[0-9])", "_", name)


def _most_voted(root: Path | None, split: str, labels: np.ndarray) -> np.ndarray:
    """bool (N,): whether the label has more votes than every other answer."""
    votes = read(root, split).votes
    if votes is None:
        raise DataError(f"{root or 'The copy on the Hub'} has no FER+ votes: put fer2013new.csv beside fer2013.csv.")
    own = np.array([VOTES.index(name) for name in SEVEN])[labels]
    rest = votes.copy()
    rest[np.arange(len(votes)), own] = 0
    return votes[np.arange(len(votes)), own] > rest.max(axis=1)
