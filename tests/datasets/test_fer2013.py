"""FER+ and the cleaned FER2013, on tiny copies."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_bench.datasets import fer2013, fer2013_copies, load_dataset
from fer_bench.datasets.splits import a_tenth
from fer_bench.emotions import EIGHT, SEVEN
from tests.datasets.fer2013_tiny import (
    CLEAN,
    LABELS,
    LAYOUTS,
    MAJORITY,
    PIXELS,
    USAGES,
    broken_folders,
    encode,
    expected,
    paths,
    refusal,
    write_csv,
    write_votes,
)

pytestmark = pytest.mark.usefixtures("tiny_fer2013")


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        # neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
        ([0, 10, 0, 0, 0, 0, 0, 0, 0, 0], "happiness"),
        ([1, 4, 1, 1, 1, 1, 1, 0, 0, 0], "happiness"),  # 4 of 10, but single votes are dropped: 4 of 4
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], None),  # a tie is not more than half
        ([2, 4, 2, 0, 0, 0, 0, 0, 1, 1], None),  # 4 of 8 is exactly half
        ([2, 5, 2, 0, 0, 0, 0, 0, 1, 0], "happiness"),  # 5 of 9 is more
        ([3, 4, 0, 3, 0, 0, 0, 0, 0, 0], None),  # the most, but 4 of 10
        ([0, 0, 0, 0, 0, 0, 0, 0, 9, 1], None),  # unknown is no emotion
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], None),  # not a face
        ([0, 0, 0, 0, 0, 0, 0, 6, 4, 0], "contempt"),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None),  # nothing is left
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], None),  # FER+ has no entry
        ([0, 0, 0, 0, 7, 0, 3, 0, 0, 0], "anger"),
        ([0, 0, 0, 0, 0, 2, 1, 0, 1, 1], "disgust"),
    ],
)
def test_the_majority_rule_by_hand(votes: list[int], label: str | None) -> None:
    """Single votes are dropped; then an emotion, not unknown or no-face, must hold more than half of the rest."""
    kept, labels = fer2013.majority(np.array([votes]))
    assert bool(kept[0]) == (label is not None)
    assert label is None or EIGHT[labels[0]] == label


@pytest.mark.parametrize("layout", ["csv", "windows csv", "folders", "zip", "parquet", "parquet without votes"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ferplus_from_every_layout(layout: str, end: str, tmp_path: Path) -> None:
    """From every layout, FER+ keeps the rows with a majority and labels them by the votes."""
    LAYOUTS[layout](tmp_path)
    if layout == "zip":
        write_votes(tmp_path, end=end)
        with zipfile.ZipFile(tmp_path / "archive.zip", "a") as archive:
            archive.write(tmp_path / "fer2013new.csv", "fer2013/fer2013new.csv")
        (tmp_path / "fer2013new.csv").unlink()
    elif layout != "parquet":
        write_votes(tmp_path, end=end)
    for split, rows in MAJORITY.items():
        faces = load_dataset("ferplus", split, tmp_path)
        assert faces.ids == tuple(f"{USAGES[split]}_{row}" for row in rows)
        assert faces.labels.tolist() == [7 if row % 7 == 6 else LABELS[row] for row in rows]
        np.testing.assert_array_equal(faces.images, PIXELS[rows])
        assert faces.emotions == EIGHT


def test_votes_stay_with_their_picture_without_rows(tmp_path: Path) -> None:
    """Votes in a parquet file without rows belong to the picture beside them."""
    LAYOUTS["parquet votes without rows"](tmp_path)
    faces = load_dataset("ferplus", "test", tmp_path)
    np.testing.assert_array_equal(faces.images, PIXELS[MAJORITY["test"]])


@pytest.mark.parametrize("layout", ["csv", "hub files", "zip"])
def test_no_votes(layout: str, tmp_path: Path) -> None:
    """A copy of FER2013 without votes is refused for FER+, with the file to put beside it."""
    LAYOUTS[layout](tmp_path)
    text = refusal(tmp_path, "test", "ferplus")
    assert text.startswith(f"{tmp_path} has no FER+ votes: put fer2013new.csv beside ")


def test_votes_beside_pictures_of_unknown_rows(tmp_path: Path) -> None:
    """Some copies number their pictures far beyond the last row: FER2013 loads, and no votes are guessed."""
    for name, row in paths().items():
        path = tmp_path / name.replace(f"_{row}.", f"_{row + 10_000_000 * (row % 2)}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(row))
    write_votes(tmp_path)
    assert load_dataset("fer2013", "test", tmp_path).counts == expected("test").counts
    assert "numbered by their row" in refusal(tmp_path, "test", "ferplus")


def test_votes_of_other_pictures(tmp_path: Path) -> None:
    """Votes that are shifted against the pictures keep the right number but the wrong labels, and are refused."""
    write_csv(tmp_path)

    def shift(lines: list[list[str]]) -> None:
        # Rows ten apart agree on whether there is a majority, and not on the label.
        lines[1:101] = lines[11:101] + lines[1:11]

    write_votes(tmp_path, shift)
    text = refusal(tmp_path, "train", "ferplus")
    assert f"{tmp_path}: the FER+ majority rule keeps 99 train pictures where it must keep 99, and " in text
    assert text.endswith("do not belong together, get fer2013new.csv and FER2013 again.")


def test_votes_that_keep_the_wrong_number(tmp_path: Path) -> None:
    """Votes that keep another number of pictures than FER+ does are refused with both numbers."""
    write_csv(tmp_path)

    def forget(lines: list[list[str]]) -> None:
        lines[1][2:] = ["0"] * 10

    write_votes(tmp_path, forget)
    text = refusal(tmp_path, "train", "ferplus")
    assert "the FER+ majority rule keeps 98 train pictures where it must keep 99" in text
    assert "get fer2013new.csv and FER2013 again" in text


def test_ferplus_with_a_broken_picture(tmp_path: Path) -> None:
    """One broken picture may be missing from FER+, by name; a missing one besides may not."""
    broken_folders(tmp_path)
    write_votes(tmp_path)
    faces = load_dataset("ferplus", "train", tmp_path)
    assert len(faces) == 98
    assert len(faces.skipped) == 1


@pytest.mark.parametrize(
    ("line", "cells"),
    [(4, ["Training", "fer0000003.png", *"012345678"]), (4, ["Training", "a", *"01234x6789"]), (9, ["Training"])],
)
def test_a_bad_line_in_the_votes(line: int, cells: list[str], tmp_path: Path) -> None:
    """A line without ten counts is refused by file and line."""
    write_csv(tmp_path)
    write_votes(tmp_path, lambda lines: lines.__setitem__(line - 1, cells))
    assert refusal(tmp_path, "test", "ferplus") == (
        f"{tmp_path / 'fer2013new.csv'}, line {line}: ten vote counts must follow the image name; get the file again."
    )


def test_a_vote_file_with_other_columns(tmp_path: Path) -> None:
    """A vote file with another header is refused by file, with the columns it must have."""
    write_csv(tmp_path)
    write_votes(tmp_path, lambda lines: lines[0].reverse())
    text = refusal(tmp_path, "test", "ferplus")
    assert text.startswith(f"{tmp_path / 'fer2013new.csv'}, line 1: the columns must be Usage, Image name, neutral, ")


def test_a_vote_file_that_is_none(tmp_path: Path) -> None:
    """A binary file in place of the votes is refused by name."""
    write_csv(tmp_path)
    (tmp_path / "fer2013new.csv").write_bytes(b"\xff\x80" * 50)
    text = refusal(tmp_path, "test", "ferplus")
    assert text.startswith(f"{tmp_path / 'fer2013new.csv'}: this is not a readable UTF-8 CSV file (")
    assert text.endswith("get it again.")


# FER2013, cleaned


@pytest.mark.parametrize(
    ("votes", "own", "kept"),
    [
        # neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
        ([0, 10, 0, 0, 0, 0, 0, 0, 0, 0], "happiness", True),
        ([9, 1, 0, 0, 0, 0, 0, 0, 0, 0], "happiness", True),  # one rater is enough
        ([10, 0, 0, 0, 0, 0, 0, 0, 0, 0], "happiness", False),  # all saw something else
        ([0, 0, 0, 8, 0, 0, 0, 0, 1, 1], "sadness", True),
        ([0, 0, 0, 7, 0, 0, 0, 0, 2, 1], "sadness", False),  # three saw no emotion or no face
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "neutral", False),  # FER+ has no entry
    ],
)
def test_the_cleaning_rule_by_hand(votes: list[int], own: str, kept: bool) -> None:
    """FER2013's label needs one rater of ten, and at most two may have said unknown or not a face."""
    assert fer2013.clean(np.array([votes]), np.array([SEVEN.index(own)])).tolist() == [kept]


def test_the_clean_pictures_keep_their_own_labels(tmp_path: Path) -> None:
    """Rows of which the raters saw too little or something else are left out; the others are FER2013's as they are."""
    write_csv(tmp_path)
    write_votes(tmp_path)
    for split, rows in CLEAN.items():
        faces = load_dataset("fer2013-clean", split, tmp_path)
        assert faces.ids == tuple(f"{USAGES[split]}_{row}" for row in rows)
        assert faces.labels.tolist() == [LABELS[row] for row in rows]
        np.testing.assert_array_equal(faces.images, PIXELS[rows])
        assert faces.emotions == SEVEN


def test_cleaning_needs_the_votes_of_these_pictures(tmp_path: Path) -> None:
    """Without votes, or with those of other pictures, the cleaned set is refused."""
    write_csv(tmp_path)
    assert refusal(tmp_path, "test", "fer2013-clean").startswith(f"{tmp_path} has no FER+ votes: put fer2013new.csv ")
    write_votes(tmp_path, lambda lines: lines.insert(1, lines.pop()))
    fer2013_copies.read.cache_clear()
    text = refusal(tmp_path, "train", "fer2013-clean")
    assert f"train pictures are clean where {len(CLEAN['train'])} must be; the votes and the pictures do not" in text


def test_both_tests_as_one(tmp_path: Path) -> None:
    """PublicTest and PrivateTest are the test, in this order; Training alone is cut into train and validation."""
    write_csv(tmp_path)
    train, validation, test = (load_dataset("fer2013-merged", split, tmp_path) for split in USAGES)
    assert test.ids == (
        *(f"PublicTest_{row}" for row in range(110, 117)),
        *(f"PrivateTest_{r}" for r in range(117, 126)),
    )
    np.testing.assert_array_equal(test.images, PIXELS[110:])
    assert test.labels.tolist() == LABELS[110:]
    held = a_tenth([f"Training_{row}" for row in range(110)])
    for faces, rows in ((train, np.flatnonzero(~held)), (validation, np.flatnonzero(held))):
        assert len(faces) == len(rows) > 0
        np.testing.assert_array_equal(faces.images, PIXELS[rows])
        assert faces.labels.tolist() == [LABELS[row] for row in rows]
        assert faces.ids == tuple(f"Training_{row}" for row in rows)


def test_copies_numbered_alike_hold_the_same_tenth_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies whose names have zeros before the row's number divide the same pictures as those without."""
    write_csv(tmp_path)
    plain = load_dataset("fer2013-merged", "validation", tmp_path)

    def padded(root: Path, split: str) -> fer2013_copies.Raw:
        raw = fer2013_copies.read(root, split)
        numbered = (name.split("_") for name in raw.ids)
        return replace(raw, ids=tuple(f"{usage}_{int(row):05d}" for usage, row in numbered))

    monkeypatch.setattr(fer2013, "read", padded)
    found = load_dataset("fer2013-merged", "validation", tmp_path)
    assert found.content_hash() == plain.content_hash()
    assert found.ids != plain.ids


def test_an_incomplete_copy_has_no_merged_test(tmp_path: Path) -> None:
    """Where one of the two official tests is not whole there is no merged one either."""
    write_csv(tmp_path)
    lines = (tmp_path / "fer2013.csv").read_text().splitlines()
    (tmp_path / "fer2013.csv").write_text("\n".join(lines[:-3]) + "\n")
    assert "6 of the 9 official test pictures" in refusal(tmp_path, "test", "fer2013-merged")
    assert len(load_dataset("fer2013-merged", "train", tmp_path)) > 0
