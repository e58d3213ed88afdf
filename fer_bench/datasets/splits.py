"""Splits for data sets that come without official ones: by subject, by random frames, and a fixed tenth of train.

All go by a salted hash of the name itself: no list to store and no random generator, the same answer on every
machine and in whatever order files are read.

- By subject: the subjects, in the order of their hashes, are cut at 70 % and 80 %: the first part trains, the tenth
  after it validates, the last fifth tests. No person stands on two sides. Any copy that holds all the subjects gives
  the same split, however many pictures it has of each; a further subject moves at most one other across each cut.
- Random frames: the same cuts over the frames, so that the frames of one clip land on both sides. This is how P0
  splits (70 % train, 30 % validated on); it flatters a method, and stands beside the other so that both can be seen.
- A tenth: for sets with an official train and test split and nothing between. A picture whose hash falls in the
  lowest tenth of all hashes belongs to the validation split, whatever other pictures there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from fer_bench.datasets.base import SPLITS

TRAIN = 0.7
"""Fraction of the subjects (or frames) that train."""
VALIDATION = 0.1
"""Fraction of them that validates; the rest tests."""


def by_subject(subjects: Sequence[str], split: str, salt: str = "subject") -> np.ndarray:
    """bool (N,): which samples belong to the split, where subjects[i] is the person that sample i shows.

    70 / 10 / 20 % of the persons (not of the samples), rounded; with three persons or more no split is empty.
    """
    return _cut(subjects, split, salt)


def random_frames(ids: Sequence[str], split: str, seed: int = 0) -> np.ndarray:
    """bool (N,): which samples belong to the split when 70 / 10 / 20 % of the frames are drawn whoever they show.

    ids: N distinct sample names. Another seed is another draw.
    """
    return _cut(ids, split, f"frame {seed}")


def a_tenth(ids: Sequence[str], salt: str = "validation") -> np.ndarray:
    """bool (N,): the tenth of these samples (near enough: each falls in by its own hash) that is held out of train."""
    return np.array([_hash(name, salt) < 2**64 // 10 for name in ids], dtype=bool)


def held_out(names: Sequence[str], part: float, salt: str = "validation") -> np.ndarray:
    """bool (N,): the samples of that part of the distinct names, rounded, and of one at least where there are two.

    For small sets, of which `a_tenth` may hold out nothing; another name moves one other at most.
    """
    ordered = sorted(set(names), key=lambda name: (_hash(name, salt), name))
    chosen = set(ordered[: min(max(1, round(part * len(ordered))), len(ordered) - 1)])
    return np.array([name in chosen for name in names], dtype=bool)


def _cut(names: Sequence[str], split: str, salt: str) -> np.ndarray:
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; the splits are {', '.join(SPLITS)}")
    # The name breaks a tie of hashes, so that the order is total.
    ordered = sorted(set(names), key=lambda name: (_hash(name, salt), name))
    count = len(ordered)
    # At least one name is left for each of the splits where there are names enough.
    held = max(1, round(count * (1 - TRAIN - VALIDATION)))
    validation = max(1, round(count * VALIDATION))
    first, second = max(0, count - held - validation), max(0, count - held)
    part = {"train": ordered[:first], "validation": ordered[first:second], "test": ordered[second:]}
    chosen = set(part[split])
    return np.array([name in chosen for name in names], dtype=bool)


def _hash(name: str, salt: str) -> int:
    """0..2**64 - 1, evenly spread, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{name}".encode()).digest()[:8], "big")
