"""Merging data sets: each picture once, test first, provenance, and read back by `datasets` and as a folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.datasets import DATASETS, load_dataset, merge
from fer_bench.datasets.__main__ import main
from fer_bench.datasets.base import Dataset, FaceSet
from fer_bench.emotions import SEVEN
from tests.datasets.own_pictures import table

SPLITS = ("train", "validation", "test")


def draw(path: Path, seed: int, side: int = 64, grey: bool = True) -> Path:
    """A picture of noise; grey as RGB where asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8))
    (image if grey else image.convert("RGB")).save(path)
    return path


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """Two folders that share pictures: seed 1 (test of one, train of the other, as RGB), 2 (train of both)."""
    one, other = tmp_path / "one", tmp_path / "other"
    draw(one / "test" / "happy" / "a.png", 1)
    draw(one / "train" / "happy" / "b.png", 2)
    draw(one / "train" / "sad" / "c.png", 3)
    draw(one / "validation" / "sad" / "d.png", 4)
    draw(other / "train" / "anger" / "e.png", 1, grey=False)
    draw(other / "train" / "happiness" / "f.png", 2, grey=False)
    draw(other / "train" / "contempt" / "g.png", 5, side=80)
    draw(other / "test" / "anger" / "h.png", 6)
    return [f"folder:{one}", f"folder:{other}"]


def merged(tmp_path: Path, sources: list[str], *more: str) -> Path:
    """The folder that the command writes."""
    assert main(["merge", *sources, "-o", str(tmp_path / "out"), *more]) == 0
    return tmp_path / "out"


EXPECTED = {
    ("train", "one", "happy/b.png"): "happiness",
    ("train", "one", "sad/c.png"): "sadness",
    ("train", "other", "contempt/g.png"): "contempt",
    ("validation", "one", "sad/d.png"): "sadness",
    ("test", "one", "happy/a.png"): "happiness",
    ("test", "other", "anger/h.png"): "anger",
}


def test_parquet_is_read_back_by_datasets(tmp_path: Path, two: list[str]) -> None:
    """`datasets` reads pictures, class labels in the canonical order and provenance; no picture stands twice."""
    from datasets import load_dataset as hf_load

    out = merged(tmp_path, two)
    files = {split: str(out / f"{split}.parquet") for split in SPLITS}
    found = hf_load("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    names = found["train"].features["label"].names
    assert names == ["anger", "happiness", "sadness", "contempt"]
    told = {
        (split, row["source"].removeprefix("folder:"), row["source_id"]): names[row["label"]]
        for split in SPLITS
        for row in found[split]
    }
    assert told == EXPECTED
    assert all(row["source_split"] == split for split in SPLITS for row in found[split])
    pictures = {row["source_id"]: row["image"] for split in SPLITS for row in found[split]}
    assert {image.size for image in pictures.values()} == {(64, 64)}
    by_folder = hf_load(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(by_folder[split]) for split in by_folder} == {"train": 3, "validation": 1, "test": 2}
    np.testing.assert_array_equal(
        np.asarray(pictures["sad/c.png"]), np.random.default_rng(3).integers(0, 256, (64, 64), dtype=np.uint8)
    )


def test_a_folder_is_read_back_with_the_same_counts(tmp_path: Path, two: list[str]) -> None:
    """With --as folder, `folder:DIR` gives the counts of merge.json, and metadata.csv says where each is from."""
    out = merged(tmp_path, two, "--as", "folder", "--size", "48")
    told = json.loads((out / "merge.json").read_text())
    provenance = {}
    for split in SPLITS:
        faces = load_dataset(f"folder:{out}", split)
        assert faces.counts == {emotion: n for emotion, n in told["counts"][split].items() if n}
        assert faces.images.shape[1:3] == (48, 48)
        with (out / split / "metadata.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                assert row["file_name"] in faces.ids
                provenance[split, row["source"].removeprefix("folder:"), row["source_id"]] = row["emotion"]
    assert provenance == EXPECTED


def test_people_stay_with_their_pictures(tmp_path: Path, two: list[str]) -> None:
    """Both forms say whom a picture shows where its source does, no two sources share a person, and the test split's
    metadata.csv gives them back."""
    from datasets import load_dataset as hf_load

    rows = ("path,emotion,split,subject", "train/happy/b.png,happy,train,Ann", "test/happy/a.png,happy,test,Bob")
    sources = [table(tmp_path / "one" / "who.csv", *rows), two[1]]
    out = merged(tmp_path, sources, "--as", "folder")
    faces = load_dataset(f"csv:{out / 'test' / 'metadata.csv'}")
    assert [name.split("/")[0] for name in faces.ids] == ["happiness", "anger"]
    assert faces.subjects[0] == "0-csv-who-csv/Bob"
    assert "1 test picture(s) name no subject" in " ".join(faces.notes)
    parquet = tmp_path / "parquet"
    assert main(["merge", *sources, "-o", str(parquet)]) == 0
    found = hf_load("parquet", data_files=str(parquet / "train.parquet"), cache_dir=str(tmp_path / "cache"))["train"]
    assert sorted(found["subject"]) == ["", "0-csv-who-csv/Ann"]


def test_a_person_that_is_lost_is_told(tmp_path: Path, two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Of a picture that stands twice the first is kept; where only a later source knows whom it shows, that is said."""
    rows = ("path,emotion,split,subject", "train/happy/b.png,happy,train,Ann", "test/happy/a.png,happy,test,Bob")
    who = table(tmp_path / "one" / "who.csv", *rows)
    told = "whom 1 pictures of train show is known here, but not of the same pictures in the sources named before"
    out = merged(tmp_path, [two[0], who])
    assert told in capsys.readouterr().err
    assert told in (out / "merge.json").read_text()
    merged(tmp_path / "again", [who, two[0]])
    assert "is known here" not in capsys.readouterr().err


def test_both_forms_hold_the_same(tmp_path: Path, two: list[str]) -> None:
    """merge.json differs in nothing but the form."""
    told = []
    for form in ("parquet", "folder"):
        assert main(["merge", *two, "-o", str(tmp_path / form), "--as", form]) == 0
        told.append(json.loads((tmp_path / form / "merge.json").read_text()) | {"form": ""})
    assert told[0] == told[1]


def test_duplicates_are_counted_and_test_wins(tmp_path: Path, two: list[str]) -> None:
    """A train picture that is some set's test picture goes, whatever its label, and the counts say so."""
    out = merged(tmp_path, two)
    told = json.loads((out / "merge.json").read_text())
    assert told["duplicates"] == {
        "removed": [
            {"source": "folder:other", "split": "train", "stays_in": "test", "pictures": 1},
            {"source": "folder:other", "split": "train", "stays_in": "train", "pictures": 1},
        ],
        "total": 2, "with_another_label": 1,
    }  # fmt: skip
    assert told["pictures"] == {"train": 3, "validation": 1, "test": 2}
    assert [source["label_map"] for source in told["sources"]] == [
        {"happiness": 1, "sadness": 2}, {"anger": 0, "happiness": 1, "contempt": 3},
    ]  # fmt: skip
    text = (out / "README.md").read_text()
    assert "| 1 | folder:other | train | test |" in text
    assert "| 1 | happiness | 1 | 0 | 1 |" in text
    assert str(tmp_path) not in text + json.dumps(told)


def test_validation_wins_over_train_and_the_first_named_over_the_second(tmp_path: Path) -> None:
    """A picture in validation of one set and train of another stays in validation; within a split, in the first set."""
    draw(tmp_path / "a" / "train" / "sad" / "1.png", 1)
    draw(tmp_path / "b" / "val" / "sad" / "2.png", 1)
    draw(tmp_path / "a" / "test" / "sad" / "3.png", 2)
    draw(tmp_path / "b" / "test" / "sad" / "4.png", 2)
    sources = [f"folder:{tmp_path / 'b'}", f"folder:{tmp_path / 'a'}"]
    told = json.loads((merged(tmp_path, sources) / "merge.json").read_text())
    assert told["pictures"] == {"validation": 1, "test": 1}
    assert [source["pictures"]["test"] for source in told["sources"]] == [1, 0]


def test_registered_sets_and_csv_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A registered set's pictures are resized, carry its ids and its notes; a CSV gives the splits of its rows."""

    def load(root: Path | None, split: str) -> FaceSet:
        images = np.random.default_rng(len(split)).integers(0, 256, (2, 48, 48), dtype=np.uint8)
        ids, notes = (f"{split}-0", f"{split}-1"), ("2 of the 9 official",)
        return FaceSet("rendered", split, SEVEN, images, np.array([6, 0]), ids, ("x: broken",), notes)

    monkeypatch.setitem(DATASETS._entries, "rendered", Dataset(DATASETS["rendered"].card, load))
    draw(tmp_path / "p.png", 9)
    (tmp_path / "list.csv").write_text("path,emotion,split\np.png,fear,val\n")
    out = merged(tmp_path, ["rendered", f"csv:{tmp_path / 'list.csv'}"], "--as", "folder")
    told = json.loads((out / "merge.json").read_text())
    assert told["pictures"] == {"train": 2, "validation": 3, "test": 2}
    assert [(s["name"], s["unreadable"]) for s in told["sources"]] == [("rendered", 3), ("csv:list.csv", 0)]
    assert [s["notes"] for s in told["sources"]] == [["2 of the 9 official"], []]
    assert "\n\n- rendered: 2 of the 9 official\n\n## Duplicates" in (out / "README.md").read_text()
    assert "3 unreadable, left out" in capsys.readouterr().out
    assert told["emotions"] == list(SEVEN)
    with (out / "test" / "metadata.csv").open(newline="") as file:
        assert {row["source_id"] for row in csv.DictReader(file)} == {"test-0", "test-1"}


def test_two_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Sources whose folders share their last name have names of their own, without the path."""
    for parent in ("x", "y"):
        draw(tmp_path / parent / "faces" / "sad" / "1.png", ord(parent))
    out = merged(tmp_path, [f"folder:{tmp_path / p / 'faces'}" for p in "xy"])
    told = json.loads((out / "merge.json").read_text())
    assert [(s["name"], s["pictures"]["test"]) for s in told["sources"]] == [("folder:faces", 1), ("folder:faces#2", 1)]


def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full half-way leaves the folder as it was and no temporary one, with exit code 1."""
    written = merge.WRITERS["folder"]

    def full(folder: Path, split: str, *args: object) -> None:
        written(folder, split, *args)
        if split == "train":
            raise OSError("no space left on device")

    monkeypatch.setitem(merge.WRITERS, "folder", full)
    (tmp_path / "out").mkdir()
    before = sorted(tmp_path.iterdir())
    assert main(["merge", *two, "-o", str(tmp_path / "out"), "--as", "folder"]) == 1
    assert "no space left on device; nothing was written" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        (["fer2031"], "Did you mean 'fer2013'"),
        (["folder:nowhere"], "nowhere: there is no such folder"),
        (["csv:nowhere.csv"], "nowhere.csv: there is no such file"),
        (["rendered", "rendered"], "rendered is named twice"),
    ],
)
def test_wrong_sources_are_one_sentence(
    tmp_path: Path, sources: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown, missing and repeated sources end with exit code 2 and nothing written."""
    assert main(["merge", *sources, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_full_folder_is_refused(tmp_path: Path, two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of the user's is overwritten: a folder with something in it, or a file, is refused by name."""
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / "thesis.txt"
    kept.write_text("all of it")
    for place in (tmp_path / "out", kept):
        assert main(["merge", *two, "-o", str(place)]) == 2
        wanted = f"{place}: there is something in this place already; name a new or an empty folder.\n"
        assert capsys.readouterr().err == wanted
    assert kept.read_text() == "all of it"


def test_into_the_empty_folder_one_stands_in(tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`-o .` fills an empty working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["merge", *two, "-o", "."]) == 0
    assert (tmp_path / "here" / "merge.json").is_file()


def test_into_an_empty_folder_that_cannot_be_replaced(tmp_path: Path, two: list[str]) -> None:
    """A link stays one, its folder the same (it may be a mount point); what a killed run left there is no hindrance."""
    (tmp_path / "real" / ".unfinished-1" / "half").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    before = (tmp_path / "real").stat().st_ino
    assert main(["merge", *two, "--size", "16", "-o", str(tmp_path / "link"), "--as", "folder"]) == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").stat().st_ino == before
    names = {path.name for path in (tmp_path / "real").iterdir()}
    assert {"merge.json", "README.md", "test"} <= names
    assert [name for name in names if name.startswith(".")] == [".unfinished-1"]


def test_wrong_use_makes_no_folders(tmp_path: Path) -> None:
    """A source that is not there is said before the place of the result is touched."""
    assert main(["merge", "nosuch", "-o", str(tmp_path / "a" / "b")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_sizes_out_of_range_are_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--size 5 is refused with the range."""
    with pytest.raises(SystemExit) as caught:
        main(["merge", "rendered", "--size", "5", "-o", str(tmp_path / "out")])
    assert caught.value.code == 2
    assert "must lie in 16..512 pixels, not 5" in capsys.readouterr().err
