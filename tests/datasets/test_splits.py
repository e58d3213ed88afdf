"""Splits by subject, by random frames and by a tenth: complete, apart, the same everywhere, and stable."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from fer_bench.datasets import load_dataset, main, splits
from fer_bench.datasets.base import SPLITS
from tests.helpers import write_folder

PEOPLE = [f"S{number:03d}" for number in range(1, 101)]

HELD = ["S001", "S003", "S005", "S007"]
VALIDATING = ["S008", "S016"]


def parts(cut, names: list[str]) -> dict[str, set[str]]:
    """Split -> the names in it; every sample must stand in exactly one."""
    masks = {split: cut(names, split) for split in SPLITS}
    assert (sum(mask.astype(int) for mask in masks.values()) == 1).all()
    return {split: {name for name, inside in zip(names, mask, strict=True) if inside} for split, mask in masks.items()}


def test_nobody_stands_on_two_sides() -> None:
    """All samples of a person are in one split, whatever their number, and the people divide 70 / 10 / 20."""
    samples = [person for index, person in enumerate(PEOPLE) for _ in range(1 + index % 7)]
    random.Random(3).shuffle(samples)
    found = parts(splits.by_subject, samples)
    assert [len(found[split]) for split in SPLITS] == [70, 10, 20]
    assert not found["train"] & found["validation"] | found["train"] & found["test"]
    assert not found["validation"] & found["test"]


def test_the_split_by_subject_is_the_same_everywhere() -> None:
    """The people who test are these ones, on every machine: a changed rule would change every figure."""
    held = sorted(parts(splits.by_subject, PEOPLE[:20])["test"])
    assert held == HELD
    assert sorted(parts(splits.by_subject, PEOPLE[:20])["validation"]) == VALIDATING


def test_order_and_number_of_samples_move_nobody() -> None:
    """Files read in another order, or some persons with more pictures, give the same people on the same sides."""
    samples = PEOPLE * 3 + PEOPLE[:40] * 5
    random.Random(1).shuffle(samples)
    assert parts(splits.by_subject, samples) == parts(splits.by_subject, PEOPLE)


def test_one_more_subject_moves_at_most_one_across_each_cut() -> None:
    """The order of the people is a matter of their own names, so that a further one hardly changes the split."""
    before, after = parts(splits.by_subject, PEOPLE), parts(splits.by_subject, [*PEOPLE, "S500"])
    for split in SPLITS:
        assert len(before[split] - after[split]) <= 1


@pytest.mark.parametrize(("count", "sizes"), [(1, [0, 0, 1]), (2, [0, 1, 1]), (3, [1, 1, 1]), (10, [7, 1, 2])])
def test_few_subjects(count: int, sizes: list[int]) -> None:
    """With three people or more no split is empty; with fewer the test split comes first."""
    found = parts(splits.by_subject, PEOPLE[:count])
    assert [len(found[split]) for split in SPLITS] == sizes


def test_nothing_to_split() -> None:
    """No samples give empty masks."""
    for cut in (splits.by_subject, splits.random_frames, lambda names, split: splits.a_tenth(names)):
        mask = cut([], "train")
        assert (mask.dtype, mask.shape) == (np.bool_, (0,))


def test_random_frames_divide_the_frames() -> None:
    """Frames, not people, divide 70 / 10 / 20: nearly every person of ten frames stands in both train and test."""
    frames = [f"{person}_{frame}" for person in PEOPLE for frame in range(10)]
    found = parts(splits.random_frames, frames)
    assert [len(found[split]) for split in SPLITS] == [700, 100, 200]
    both = {name[:4] for name in found["train"]} & {name[:4] for name in found["test"]}
    assert len(both) > 80


def test_another_seed_is_another_draw() -> None:
    """Seed 0 is the default and always the same draw; seed 1 is a different one."""
    assert (splits.random_frames(PEOPLE, "test") == splits.random_frames(PEOPLE, "test", seed=0)).all()
    assert (splits.random_frames(PEOPLE, "test") != splits.random_frames(PEOPLE, "test", seed=1)).any()


def test_a_tenth_goes_by_each_name_alone() -> None:
    """About a tenth is held out, and whether a picture is does not depend on the others."""
    names = [f"train_{number:05d}" for number in range(1, 12_272)]
    held = splits.a_tenth(names)
    assert held.sum() == 1_255
    assert (splits.a_tenth(names[5_000:6_000]) == held[5_000:6_000]).all()


@pytest.mark.parametrize("cut", [splits.by_subject, splits.random_frames])
def test_a_misspelt_split_is_refused(cut) -> None:
    """An unknown split is refused with the valid ones."""
    with pytest.raises(ValueError, match="there is no split 'val'; the splits are train, validation, test"):
        cut(PEOPLE, "val")


def test_splits_are_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`splits` writes id, emotion and split of every picture, the same bytes each time, and says how many there are."""
    source = f"folder:{write_folder(tmp_path / 'faces', per_class=2)}"
    for name in ("a.csv", "b.csv"):
        assert main(["splits", source, "-o", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.endswith("b.csv: train 14, validation 14, test 14\n")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    header, *lines = (tmp_path / "a.csv").read_text().splitlines()
    assert header == "id,emotion,split"
    wanted = []
    for split in SPLITS:
        faces = load_dataset(source, split)
        named = [faces.emotions[label] for label in faces.labels]
        wanted += [f"{sample},{emotion},{split}" for sample, emotion in zip(faces.ids, named, strict=True)]
    assert lines == wanted


def test_splits_say_who_is_who(tmp_path: Path) -> None:
    """Where a data set knows its people, a fourth column names them."""
    folder = write_folder(tmp_path / "faces", per_class=1)
    lines = [f"{split}/fear/0.png,fear,{split},{who}" for split, who in zip(SPLITS, "abc", strict=True)]
    (folder / "who.csv").write_text("\n".join(["path,emotion,split,subject", *lines]))
    assert main(["splits", f"csv:{folder / 'who.csv'}", "-o", str(tmp_path / "a.csv")]) == 0
    assert (tmp_path / "a.csv").read_text().splitlines() == ["id,emotion,split,subject", *lines]


def test_a_name_that_is_no_utf_8_is_written_with_escapes(tmp_path: Path) -> None:
    """A picture whose name holds a Latin-1 é stands in the file as caf\\udce9.png."""
    folder = write_folder(tmp_path / "faces", per_class=1)
    (folder / "test" / "fear" / "0.png").rename(os.fsdecode(bytes(folder / "test" / "fear") + b"/caf\xe9.png"))
    assert main(["splits", f"folder:{folder}", "-o", str(tmp_path / "a.csv")]) == 0
    assert "fear/caf\\udce9.png,fear,test" in (tmp_path / "a.csv").read_text().splitlines()


@pytest.mark.parametrize(("source", "out", "says"), [("ckpluss", "a.csv", "ckplus"), ("rendered", "a.txt", ".csv")])
def test_splits_that_cannot_be_written(
    source: str, out: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown data set and another kind of file are one sentence and exit code 2."""
    assert main(["splits", source, "-o", str(tmp_path / out)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where a folder must be is named, and the exit code says that the command was right and its run failed."""
    (tmp_path / "file").touch()
    source = f"folder:{write_folder(tmp_path / 'faces', per_class=1)}"
    assert main(["splits", source, "-o", str(tmp_path / "file" / "a.csv")]) == 1
    assert f"{tmp_path / 'file' / 'a.csv'} cannot be written: " in capsys.readouterr().err
