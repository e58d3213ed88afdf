"""Where FER2013's label is what FER+'s raters saw: worked by hand on a tiny copy, and on the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fer_bench
from fer_bench.datasets import fer2013
from fer_bench.datasets.fer2013_copies import VOTES
from fer_bench.emotions import SEVEN
from fer_bench.errors import DataError, UserError
from fer_bench.label_noise import agreed
from fer_bench.registry import UnknownNameError
from tests.datasets.fer2013_tiny import LABELS, SPLITS, write_csv, write_votes


def counts(own: int, emotion: str, **votes: int) -> list[str]:
    """Ten votes: `own` of them for the emotion, others as named."""
    line = dict.fromkeys(VOTES, 0) | votes | {emotion: own}
    return [str(line[name]) for name in VOTES]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny FER2013 whose nine test pictures have votes of every kind."""
    write_csv(tmp_path)
    test = list(SPLITS["test"])
    labels = [SEVEN[LABELS[row]] for row in test]
    other = ["happiness" if label != "happiness" else "sadness" for label in labels]
    kinds = [
        counts(10, labels[0]),  # all agree
        counts(5, labels[1], **{other[1]: 3, "unknown": 2}),  # most, but no more than half
        counts(5, labels[2], **{other[2]: 5}),  # a tie
        counts(0, labels[3], **{other[3]: 10}),  # another emotion
        counts(2, labels[4], contempt=8),
        counts(4, labels[5], **{other[5]: 3, "NF": 1, "unknown": 1, "contempt": 1}),  # single votes count in one rule
        counts(3, labels[6], **{other[6]: 2, "unknown": 5}),  # most could not tell
        counts(0, labels[7]),  # none at all, as where FER+ left the picture out
        counts(9, labels[8], NF=1),
    ]

    def change(lines: list[list[str]]) -> None:
        for row, votes in zip(test, kinds, strict=True):
            lines[row + 1][2:] = votes

    write_votes(tmp_path, change)
    sizes = {name: len(rows) for name, rows in SPLITS.items()}
    labelled = {name: tuple(np.bincount([LABELS[row] for row in rows], minlength=7)) for name, rows in SPLITS.items()}
    monkeypatch.setattr(fer2013, "COUNTS", sizes)
    monkeypatch.setattr(fer2013, "CLASS_COUNTS", labelled)
    monkeypatch.setattr(fer2013, "FERPLUS_COUNTS", {**sizes, "test": 5})
    return tmp_path


def test_the_rules_worked_by_hand(root: Path) -> None:
    """FER+'s majority, single votes dropped: 10, 4 of 7 and 9 votes; the plurality also takes 5 of 10 with no rival."""
    ids = fer_bench.load_dataset("fer2013", "test", root).ids
    assert agreed(ids, root=root).tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 1]
    assert agreed(ids, "plurality", root=root).tolist() == [1, 1, 0, 0, 0, 1, 0, 0, 1]


def test_the_order_is_that_of_the_ids(root: Path) -> None:
    """Some, in another order, and with zeros before the number, as some copies have them."""
    ids = fer_bench.load_dataset("fer2013", "test", root).ids
    assert agreed(np.array([ids[8], ids[3], ids[0]]), root=root).tolist() == [True, False, True]
    padded = [name.replace("_", "_000") for name in (ids[3], ids[5])]
    assert padded[0] != ids[3]
    assert agreed(padded, root=root).tolist() == [False, True]


def test_wrong_use_is_one_sentence(root: Path) -> None:
    """Ids of another data set, a rule that is none, and a copy without votes."""
    with pytest.raises(UserError, match="1 of 1 ids are no pictures of FER2013's test split, the first is 'face_1'"):
        agreed(["face_1"], root=root)
    with pytest.raises(UnknownNameError, match="there is no rule 'most'; the rules are: majority, plurality"):
        agreed([], "most", root=root)
    (root / "fer2013new.csv").unlink()
    fer2013.read.cache_clear()
    ids = fer_bench.load_dataset("fer2013", "test", root).ids
    for rule in ("majority", "plurality"):
        with pytest.raises(DataError, match="has no FER\\+ votes: put fer2013new.csv beside"):
            agreed(ids, rule, root=root)


@pytest.mark.fer2013
def test_the_real_labels(fer2013_root: Path) -> None:
    """Of the 3,589 test pictures 2,115 have FER+'s majority and 2,197 its plurality, the first among the second; a
    network that was trained on FER2013's labels is right there far more often."""
    one = fer_bench.load_answers("fer2013", "small_cnn")
    majority, plurality = (agreed(one.ids, rule, root=fer2013_root) for rule in ("majority", "plurality"))
    assert (len(majority), majority.sum(), plurality.sum(), (majority & plurality).sum()) == (3589, 2115, 2197, 2115)
    right = one.logits.argmax(axis=1) == one.targets
    assert right[majority].mean() - right.mean() > 0.15
    assert right[~majority].mean() < 0.5
