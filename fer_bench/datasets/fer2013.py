"""FER2013 (Goodfellow et al., 2013), cleaned by a rule or with its two tests as one, and its relabelling FER+ (Barsoum
et al., 2016).

How the usual copies are read: `fer_bench.datasets.fer2013_copies`.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fer_bench.cards import DatasetCard
from fer_bench.datasets.base import DATASETS, Dataset, FaceSet, check_allowed
from fer_bench.datasets.fer2013_copies import HUB_REPO, VOTES, NoLabelsError, Raw, read, read_voted
from fer_bench.datasets.splits import a_tenth
from fer_bench.emotions import EIGHT, SEVEN
from fer_bench.errors import DataError

CLASS_COUNTS = {
    "train": (3_995, 436, 4_097, 7_215, 4_830, 3_171, 4_965),
    "validation": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}
"""Pictures of each of SEVEN."""
COUNTS = {split: sum(counts) for split, counts in CLASS_COUNTS.items()}
"""28,709, 3,589 and 3,589."""
FERPLUS_COUNTS = {"train": 25_060, "validation": 3_199, "test": 3_153}
CLEAN_COUNTS = {"train": 23_504, "validation": 2_888, "test": 2_938}
FEW = 5
"""Pictures that a class may have too many however small it is; two swapped classes differ by 29 at least."""
WHOLE = 0.99
"""Least fraction of the official pictures that a copy must have."""
AGREEMENT = 0.5
"""Least fraction of FER+ labels that are FER2013's own. It is 0.67; of shuffled pictures, 0.19."""
BY_NAME = "FER2013's labels are not in this copy: that each vote is its own picture's stands by the files' names alone"
"""The note on a copy that FER+'s authors' script made."""

CARD = DatasetCard(
    name="fer2013",
    title="FER2013",
    emotions=SEVEN,
    counts=tuple(COUNTS.items()),
    licence="research use; the pictures come from web search",
    source="Kaggle, Challenges in Representation Learning: Facial Expression Recognition (2013)",
    paper="Goodfellow et al., Challenges in Representation Learning, ICONIP 2013",
)
FERPLUS_CARD = DatasetCard(
    name="ferplus",
    title="FER+ (majority rule)",
    emotions=EIGHT,
    counts=tuple(FERPLUS_COUNTS.items()),
    licence="MIT (the votes); the pictures are FER2013's",
    source="fer2013new.csv from the FER+ authors, beside a copy of FER2013",
    paper="Barsoum et al., arXiv 1608.01041, 2016",
)
CLEAN_CARD = DatasetCard(
    name="fer2013-clean",
    title="FER2013, cleaned by FER+'s votes",
    emotions=SEVEN,
    counts=tuple(CLEAN_COUNTS.items()),
    licence=CARD.licence,
    source=FERPLUS_CARD.source,
    paper=CARD.paper,
)
MERGED_CARD = DatasetCard(
    name="fer2013-merged",
    title="FER2013, PublicTest and PrivateTest as one test",
    emotions=SEVEN,
    counts=(("train", COUNTS["train"]), ("test", COUNTS["validation"] + COUNTS["test"])),  # train: before the tenth
    licence=CARD.licence,
    source=CARD.source,
    paper=CARD.paper,
)


def load_fer2013(root: Path | None, split: str) -> FaceSet:
    """One split of FER2013: uint8 (N, 48, 48), seven emotions.

    root: the folder of the copy; None downloads it from the Hub. Raises DataError where it is missing or incomplete.
    """
    check_allowed(split)
    raw = read(root, split)
    notes = _check_count(raw, split, root)
    # A copy, so that a caller who writes into a picture does not change everybody's data.
    return FaceSet("fer2013", split, SEVEN, raw.images.copy(), raw.labels.copy(), raw.ids, raw.skipped, notes)


def load_ferplus(root: Path | None, split: str) -> FaceSet:
    """One split of FER+ under the majority rule: uint8 (N, 48, 48), eight emotions.

    A copy that FER+'s authors' script made, without FER2013's labels, is taken too, and a note says so.
    Raises DataError as `load_fer2013`, and where the votes are missing or are not those of these pictures.
    """
    check_allowed(split)
    try:
        raw, notes = read(root, split), ()
        _check_count(raw, split, root)
    except NoLabelsError:
        raw, notes = read_voted(root, split), (BY_NAME,)
    kept, labels = majority(votes := _votes(raw, root))
    index, expected = np.flatnonzero(kept), FERPLUS_COUNTS[split]
    ids, labels = tuple(raw.ids[i] for i in index), labels[index]
    # The number kept says whether the votes are FER+'s; the labels say whether each stands beside its own picture.
    agreement = float((raw.labels[index] == labels).mean()) if len(index) else 0.0
    compared = "" if notes else f", and {agreement:.0%} of them have FER2013's label"
    if not 0 <= expected - len(index) <= len(raw.skipped) or (compared and agreement < AGREEMENT):
        raise DataError(
            f"{root}: the FER+ majority rule keeps {len(index):,} {split} pictures where it must keep {expected:,}"
            f"{compared}; the votes and the pictures do not belong together, get fer2013new.csv and FER2013 again."
        )
    spread = spread_of(votes[index])
    return FaceSet("ferplus", split, EIGHT, raw.images[index], labels, ids, raw.skipped, notes, votes=spread)


def load_clean(root: Path | None, split: str) -> FaceSet:
    """One split of FER2013 without the pictures that `clean` leaves out: uint8 (N, 48, 48), FER2013's own labels.

    Raises DataError as `load_ferplus`.
    """
    check_allowed(split)
    raw = read(root, split)
    notes = _check_count(raw, split, root)
    index, expected = np.flatnonzero(clean(_votes(raw, root), raw.labels)), CLEAN_COUNTS[split]
    if not 0 <= expected - len(index) <= len(raw.skipped):
        raise DataError(
            f"{root}: by FER+'s votes {len(index):,} {split} pictures are clean where {expected:,} must be; the votes "
            "and the pictures do not belong together, get fer2013new.csv and FER2013 again."
        )
    ids = tuple(raw.ids[i] for i in index)
    return FaceSet("fer2013-clean", split, SEVEN, raw.images[index], raw.labels[index], ids, raw.skipped, notes)


def load_merged(root: Path | None, split: str) -> FaceSet:
    """One split as papers have it that test on PublicTest and PrivateTest together (P2): uint8 (N, 48, 48).

    A fixed tenth of Training (`splits.a_tenth`), the same in every copy whose pictures are numbered as fer2013.csv's
    rows, validates and the rest trains; the hash of the training data tells two tenths apart. Raises DataError as
    `load_fer2013`.
    """
    check_allowed(split)
    official = ("validation", "test") if split == "test" else ("train",)
    parts = [read(root, name) for name in official]
    notes = tuple(note for part, name in zip(parts, official, strict=True) for note in _check_count(part, name, root))
    ids = [name for part in parts for name in part.ids]
    rows = [re.sub("_0+(?=[0-9])", "_", name) for name in ids]  # some copies' names have zeros before the row's number
    kept = np.ones(len(ids), dtype=bool) if split == "test" else a_tenth(rows) == (split == "validation")
    images, labels = (np.concatenate([getattr(part, name) for part in parts])[kept] for name in ("images", "labels"))
    chosen = tuple(name for name, keep in zip(ids, kept, strict=True) if keep)
    skipped = tuple(line for part in parts for line in part.skipped)
    return FaceSet("fer2013-merged", split, SEVEN, images, labels, chosen, skipped, notes)


def clean(votes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool (N,): whether one of FER+'s ten raters at least saw FER2013's label, and two at most saw no emotion or face.

    votes: int (N, 10) in the order of `VOTES`. labels: int (N,), indices into SEVEN. P3 removes blurred and ambiguous
    pictures by hand, which cannot be repeated; of the 26,217 pictures of its four emotions this keeps 23,200, about as
    many as the 23,000 of the paper. P3 also downsamples neutral, to how many pictures it does not say; this rule does
    not, and keeps as much of neutral as the votes leave.
    """
    columns = np.array([VOTES.index(name) for name in SEVEN])
    return (votes[np.arange(len(votes)), columns[labels]] >= 1) & (votes[:, 8:].sum(1) <= 2)


def _votes(raw: Raw, root: Path | None) -> np.ndarray:
    """The split's FER+ votes; DataError, with the file to put there, where the copy has none."""
    if raw.votes is None:
        raise DataError(
            f"{root or HUB_REPO} has no FER+ votes: put fer2013new.csv beside fer2013.csv, or beside pictures that are "
            "numbered by their row in it."
        )
    return raw.votes


def majority(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FER+'s majority rule: votes of 1 are dropped, then the top class must hold more than half of what is left.

    votes: int (N, 10) in the order of `VOTES`. Returns kept, bool (N,), and labels, int64 (N,), indices into EIGHT,
    meaningful where kept. (Barsoum et al., 2016; gives 25,060 / 3,199 / 3,153 pictures.)
    """
    counts = np.where(votes <= 1, 0, votes)
    top = counts.argmax(1)
    kept = (counts.max(1) * 2 > counts.sum(1)) & (top < 8)
    number = np.array([EIGHT.index(name) for name in VOTES[:8]] + [0, 0], dtype=np.int64)
    return kept, number[top]


def spread_of(votes: np.ndarray) -> np.ndarray:
    """How votes are spread over EIGHT, float32 (N, 8), rows that sum to 1: votes of 1 and for no emotion are dropped.

    votes: int (N, 10) in the order of `VOTES`, of pictures that `majority` keeps. (Barsoum et al., 2016, section 3: the
    target of their cross-entropy loss.)
    """
    counts = np.where(votes <= 1, 0, votes)[:, [VOTES.index(name) for name in EIGHT]]
    return (counts / counts.sum(1, keepdims=True)).astype(np.float32)


def _check_count(raw: Raw, split: str, root: Path | None) -> tuple[str, ...]:
    """Notes on what is missing. DataError where more than one picture in a hundred is, or where there are too many, of
    all emotions or of one: labels that follow another order are read like any others.
    """
    official, readable = COUNTS[split], len(raw.images)
    found = readable + len(raw.skipped)
    if found > official or readable < WHOLE * official:
        broken = f" ({len(raw.skipped):,} of them broken, the first: {raw.skipped[0]})" if raw.skipped else ""
        raise DataError(
            f"{root or HUB_REPO}: {found:,} of the {official:,} official {split} pictures{broken}; this is not a whole "
            "copy of FER2013, get it again."
        )
    counts = np.bincount(raw.labels, minlength=len(SEVEN)).tolist()
    for emotion, count, most in zip(SEVEN, counts, CLASS_COUNTS[split], strict=True):
        if count > max((2 - WHOLE) * most, most + FEW):  # a few labels differ between copies
            raise DataError(
                f"{root or HUB_REPO}: {count:,} of its {split} pictures are labelled {emotion} where FER2013 has "
                f"{most:,}; the labels must be numbered {', '.join(f'{i} {name}' for i, name in enumerate(SEVEN))}, or "
                "the class names stand beside them."
            )
    if found == official:
        return ()
    return (f"{split}: {found:,} of the {official:,} official pictures; this copy lacks {official - found:,}",)


DATASETS.add("fer2013", Dataset(CARD, load_fer2013))
DATASETS.add("fer2013-clean", Dataset(CLEAN_CARD, load_clean))
DATASETS.add("fer2013-merged", Dataset(MERGED_CARD, load_merged))
DATASETS.add("ferplus", Dataset(FERPLUS_CARD, load_ferplus))
