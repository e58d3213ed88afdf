"""The real FER2013, FER+ and cleaned FER2013, where a copy is here."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_bench.datasets import duplicated_in, load_dataset
from fer_bench.emotions import FOUR, SEVEN, SIX

SPLITS = ("train", "validation", "test")
pytestmark = pytest.mark.fer2013


def test_the_real_splits(fer2013_root: Path) -> None:
    """The project's copy lacks 31 training pictures and says so; 288 test pictures also stand in train."""
    found = {split: load_dataset("fer2013", split, fer2013_root) for split in SPLITS}
    assert [len(found[split]) for split in SPLITS] == [28_678, 3_589, 3_589]
    assert found["train"].notes == ("train: 28,678 of the 28,709 official pictures; this copy lacks 31",)
    assert found["validation"].notes == found["test"].notes == ()
    assert found["test"].counts == dict(zip(SEVEN, (491, 55, 528, 879, 594, 416, 626), strict=True))
    in_train = duplicated_in(found["test"], found["train"])
    by_hand = {picture.tobytes() for picture in found["train"].images}
    assert in_train.tolist() == [picture.tobytes() in by_hand for picture in found["test"].images]
    assert in_train.sum() == 288


def test_the_real_ferplus(fer2013_root: Path) -> None:
    """The majority rule keeps exactly the 25,060 / 3,199 / 3,153 pictures of FER+'s Table 1."""
    found = {split: load_dataset("ferplus", split, fer2013_root) for split in SPLITS}
    assert [len(found[split]) for split in SPLITS] == [25_060, 3_199, 3_153]
    assert all(faces.counts["contempt"] for faces in found.values())


def test_the_real_tests_as_one(fer2013_root: Path) -> None:
    """Without neutral the merged test has P2's 5,945 pictures; a tenth of Training is held out of what trains."""
    train, validation, test = (load_dataset("fer2013-merged", split, fer2013_root) for split in SPLITS)
    assert len(test.restrict(SIX)) == 5_945
    assert (len(train), len(validation), len(test)) == (28_678 - 2_753, 2_753, 7_178)
    assert not set(train.ids) & set(validation.ids)


def test_the_real_clean_pictures(fer2013_root: Path) -> None:
    """The rule keeps 23,504 / 2,888 / 2,938 pictures, of P3's four emotions 23,200 in all (the paper: about 23,000)."""
    found = [load_dataset("fer2013-clean", split, fer2013_root) for split in SPLITS]
    assert [len(faces) for faces in found] == [23_504, 2_888, 2_938]
    assert sum(len(faces.restrict(FOUR)) for faces in found) == 23_200
