"""`python -m fer_bench.datasets split`: train, validation and test of one's own pictures."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from fer_bench.datasets import load_dataset, main
from fer_bench.datasets.base import SPLITS
from tests.datasets.own_pictures import draw, table
from tests.helpers import write_folder


def split(source: object, out: Path, *more: str) -> int:
    """The command's exit code."""
    return main(["split", str(source), "-o", str(out), *more])


def rows_of(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each emotion is cut into 70 / 10 / 20 %, every picture is in one split, and the CSV is read as these pictures."""
    folder = write_folder(tmp_path / "faces", per_class=10, emotions=("anger", "fear", "sadness"), splits=False)
    assert split(folder, tmp_path / "my.csv") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'my.csv'}: train 21, validation 3, test 6\n"
    found = {name: load_dataset(f"csv:{tmp_path / 'my.csv'}", name) for name in SPLITS}
    for name, each in zip(SPLITS, (7, 1, 2), strict=True):
        assert found[name].counts == {"anger": each, "fear": each, "sadness": each}
        assert all(picture.startswith("faces/") for picture in found[name].ids)
    assert len({picture for faces in found.values() for picture in faces.ids}) == 30


def test_the_same_seed_is_the_same_draw(tmp_path: Path) -> None:
    """The file is the same byte for byte, wherever the set lies, and another seed gives another."""
    folder = write_folder(tmp_path / "faces", per_class=10, emotions=("anger", "fear"), splits=False)
    for name, more in (("a.csv", ()), ("b.csv", ("--seed", "0")), ("c.csv", ("--seed", "1"))):
        assert split(folder, tmp_path / name, *more) == 0
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.csv", "b.csv", "c.csv"))
    assert a == b != c
    shutil.copytree(folder, tmp_path / "else" / "faces")
    assert split(f"folder:{tmp_path / 'else' / 'faces'}", tmp_path / "else" / "a.csv") == 0
    assert (tmp_path / "else" / "a.csv").read_bytes() == a


@pytest.mark.parametrize(
    ("lacks", "counts"), [("validation", {"train": 27, "validation": 3}), ("test", {"train": 24, "test": 6})]
)
def test_what_lacks_is_held_out_of_train(lacks: str, counts: dict[str, int], tmp_path: Path) -> None:
    """A tenth of each emotion validates, or a fifth tests; the split that is there stays as it is."""
    folder = write_folder(tmp_path / "faces", per_class=10, emotions=("anger", "fear", "sadness"))
    shutil.rmtree(folder / lacks)
    assert split(folder, folder / "my.csv") == 0
    rows = rows_of(folder / "my.csv")
    there = "test" if lacks == "validation" else "validation"
    assert Counter(row["split"] for row in rows) == {**counts, there: 30}
    for row in rows:
        assert row["path"].startswith(f"{there}/" if row["split"] == there else "train/")
    assert set(Counter(row["emotion"] for row in rows if row["split"] == lacks).values()) == {counts[lacks] // 3}


@pytest.mark.parametrize("splits", [False, True])
def test_people_stay_on_one_side(splits: bool, tmp_path: Path) -> None:
    """Where a column says who is who, people are drawn; who is in test already is not asked."""
    lines = []
    for person in range(20):
        for take in range(1 + person % 3):
            draw(tmp_path / f"{person}-{take}.png", 10 * person + take)
            where = (",test" if person < 3 else ",train") if splits else ""
            lines.append(f"{person}-{take}.png,{('sad', 'fear')[take % 2]},P{person}{where}")
    table(tmp_path / "in.csv", "filename,label,person" + ",Usage" * splits, *lines)
    assert split(tmp_path / "in.csv", tmp_path / "my.csv") == 0
    rows = rows_of(tmp_path / "my.csv")
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["subject"], set()).add(row["split"])
    assert len(rows) == len(lines)
    assert all(len(side) == 1 for side in sides.values())
    counts = Counter(next(iter(side)) for side in sides.values())
    wanted = {"train": 15, "validation": 2, "test": 3} if splits else {"train": 14, "validation": 2, "test": 4}
    assert counts == wanted
    assert load_dataset(f"csv:{tmp_path / 'my.csv'}", "test").notes == ()


def test_people_who_were_on_two_sides_already_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was there stays as it is: whom train and test share may then validate, too."""
    lines = [f"{i}.png,{('sad', 'fear')[i % 2]},P{i % 10},{'test' if i > 24 else 'train'}" for i in range(30)]
    for i in range(30):
        draw(tmp_path / f"{i}.png", i)
    table(tmp_path / "in.csv", "path,emotion,subject,split", *lines)
    assert split(tmp_path / "in.csv", tmp_path / "my.csv") == 0
    assert "people are in several splits, as they were in those that were there" in capsys.readouterr().err


def test_people_of_the_test_alone_do_not_draw_the_others(tmp_path: Path) -> None:
    """Where nobody is named in train, each emotion is cut on its own, so that a rare one validates too."""
    lines = [f"{i}.png,{'fear' if i < 10 else 'sad'},{'P1,test' if i > 94 else ',train'}" for i in range(100)]
    for i in range(100):
        draw(tmp_path / f"{i}.png", i)
    table(tmp_path / "in.csv", "path,emotion,subject,split", *lines)
    assert split(tmp_path / "in.csv", tmp_path / "my.csv") == 0
    drawn = Counter(row["emotion"] for row in rows_of(tmp_path / "my.csv") if row["split"] == "validation")
    assert drawn == {"fear": 1, "sadness": 8}


def test_an_emotion_that_a_split_lacks_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One picture of an emotion cannot be in three splits."""
    folder = write_folder(tmp_path / "faces", per_class=5, emotions=("anger", "fear"), splits=False)
    draw(folder / "sad" / "1.png")
    assert split(folder, tmp_path / "my.csv") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "sadness" in line]
    assert told == [f"{tmp_path / 'my.csv'}: the {name} split has no pictures labelled sadness" for name in SPLITS[:2]]


def test_pictures_elsewhere_are_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CSV that lies beside its pictures' folder names it; one that lies elsewhere holds absolute paths."""
    folder = write_folder(tmp_path / "faces", per_class=4, emotions=("anger", "fear"), splits=False)
    monkeypatch.chdir(tmp_path)
    assert split("faces", Path("deep/my.csv")) == 0
    assert all(Path(row["path"]).is_relative_to(folder) for row in rows_of(tmp_path / "deep" / "my.csv"))
    assert len(load_dataset("csv:deep/my.csv", "train")) == 4


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("whole", "has train, validation and test already; train on it as it is."),
        ("no train", "has test but no train split to cut; call it train."),
        ("gone", "there is no such folder"),
        ("gone.csv", "there is no such file"),
        ("two", "has too few pictures of an emotion for three splits (train would be empty); add some."),
        ("text", "splits are written as .csv; give a name that ends so."),
        ("itself", "this is what is divided, and it would be replaced; give another name."),
        ("bytes", "this name cannot stand in a CSV; give the picture another."),
        ("twice", "a.png is listed twice"),
    ],
)
def test_what_cannot_be_divided(kind: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is one sentence and exit code 2, and nothing is written."""
    source, out = tmp_path / "in", tmp_path / "out" / "my.csv"
    if kind in ("whole", "no train"):
        write_folder(source, per_class=1)
        if kind == "no train":
            shutil.rmtree(source / "train")
            shutil.rmtree(source / "validation")
    elif kind in ("itself", "twice"):
        source = tmp_path / "in.csv"
        table(source, "path,emotion", "a.png,sad", *["a.png,sad"] * (kind == "twice"))
        out = source if kind == "itself" else out
    elif kind.startswith("gone"):
        source = tmp_path / kind
    else:
        write_folder(source, per_class=2 if kind == "two" else 5, emotions=("anger",), splits=False)
        if kind == "bytes":
            (source / "anger" / "0.png").rename(os.fsdecode(bytes(source / "anger") + b"/caf\xe9.png"))
        out = out.with_suffix(".txt") if kind == "text" else out
    before = sorted(tmp_path.rglob("*"))
    assert split(source, out) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where a folder must be is a failure, exit code 1."""
    folder = write_folder(tmp_path / "faces", per_class=4, emotions=("anger", "fear"), splits=False)
    (tmp_path / "file").touch()
    assert split(folder, tmp_path / "file" / "my.csv") == 1
    assert f"{tmp_path / 'file' / 'my.csv'} cannot be written: " in capsys.readouterr().err


def test_copies_go_to_one_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that are the same, byte for byte, are drawn as one, and how many there are is told."""
    folder = write_folder(tmp_path / "faces", per_class=20, emotions=("anger", "fear"), splits=False)
    assert split(folder, tmp_path / "once.csv") == 0
    once = {row["path"]: row["split"] for row in rows_of(tmp_path / "once.csv")}
    for picture in sorted(folder.rglob("*.png")):
        shutil.copy(picture, picture.with_name(f"again_{picture.name}"))
    capsys.readouterr()
    assert split(folder, tmp_path / "twice.csv") == 0
    told = capsys.readouterr()
    assert "40 of the 80 pictures are copies of others, byte for byte" in told.out + told.err
    assert "than their original" not in told.out + told.err
    twice = {row["path"]: row["split"] for row in rows_of(tmp_path / "twice.csv")}
    assert len(twice) == 80
    pairs = {path: (side, twice[path.replace("/again_", "/")]) for path, side in twice.items() if "again_" in path}
    assert all(one == other for one, other in pairs.values())
    assert Counter(once.values()) == Counter(twice[path] for path in once)  # the shares stay


def test_what_is_wrong_with_copies_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One picture under two emotions, and one of train that a test split which was there has too."""
    folder = write_folder(tmp_path / "faces", per_class=20, emotions=("anger", "fear"), splits=False)
    shutil.copy(folder / "anger" / "3.png", folder / "fear" / "copy.png")
    assert split(folder, tmp_path / "my.csv") == 0
    told = "".join(capsys.readouterr())
    assert "1 of them stand under another emotion than their original, such as" in told
    own = write_folder(tmp_path / "splits", per_class=20, emotions=("anger", "fear"))
    shutil.rmtree(own / "validation")
    shutil.copy(own / "test" / "anger" / "1.png", own / "train" / "anger" / "copy.png")
    assert split(own, tmp_path / "own.csv") == 0
    told = "".join(capsys.readouterr())
    assert "1 of them stand in another split than their original, such as" in told
    assert f"{own / 'test' / 'anger' / '1.png'}" in told
