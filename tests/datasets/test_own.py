"""Anyone's own pictures: folders and CSV files, in good order and in bad."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.cards import Recipe, Track
from fer_bench.datasets import lists, load_dataset
from fer_bench.datasets.lists import Names
from fer_bench.datasets.stream import list_folder
from fer_bench.errors import DataError
from fer_bench.faces import PICTURE_SUFFIXES
from fer_bench.methods import METHODS
from fer_bench.train import Options, Run
from tests.helpers import write_folder


def draw(path: Path, value: int = 100, size: tuple[int, int] = (48, 48), mode: str = "L") -> Path:
    """A picture of one brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)
    return path


def refusal(name: str, split: str = "test") -> str:
    """The text with which a data set is refused; one line."""
    with pytest.raises(DataError) as caught:
        load_dataset(name, split)
    text = str(caught.value)
    assert "\n" not in text
    return text


def table(path: Path, *lines: str, end: str = "\n", encoding: str = "utf-8") -> str:
    """A CSV file's name as a data set."""
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return f"csv:{path}"


def test_folders_named_in_any_spelling(tmp_path: Path) -> None:
    """Sub-folders in any spelling are emotions in the canonical order; pictures may lie deeper and of any suffix."""
    draw(tmp_path / "Happy" / "a.png", 10)
    draw(tmp_path / "angry" / "person 1" / "take 2" / "b.BMP", 20)
    draw(tmp_path / "HAPPINESS" / "c.tif", 30)
    faces = load_dataset(f"folder:{tmp_path}")
    assert faces.emotions == ("anger", "happiness")
    assert dict(zip(faces.ids, faces.labels.tolist(), strict=True)) == {
        "HAPPINESS/c.tif": 1, "Happy/a.png": 1, "angry/person 1/take 2/b.BMP": 0,
    }  # fmt: skip
    assert dict(zip(faces.ids, faces.images[:, 9, 9].tolist(), strict=True))["angry/person 1/take 2/b.BMP"] == 20
    assert (faces.skipped, faces.notes, faces.split) == ((), (), "test")


def test_split_folders(tmp_path: Path) -> None:
    """Sub-folders train, val and test are one split each, and their pictures are not mixed."""
    for value, split in enumerate(("train", "val", "test"), 1):
        draw(tmp_path / split / "sad" / f"{split}.png", value)
    found = {split: load_dataset(f"folder:{tmp_path}", split) for split in ("train", "validation", "test")}
    assert {split: faces.images[0, 0, 0] for split, faces in found.items()} == {"train": 1, "validation": 2, "test": 3}
    assert found["validation"].ids == ("sad/val.png",)


def test_a_folder_without_splits_is_all_test(tmp_path: Path) -> None:
    """Without split folders there is no training split, and the text says how to make one."""
    draw(tmp_path / "sad" / "1.png")
    assert refusal(f"folder:{tmp_path}", "train") == (
        f"{tmp_path}: no train split; sub-folders train, validation and test make one each."
    )


def test_a_missing_split_folder(tmp_path: Path) -> None:
    """Where some split folders are there and the wanted one is not, the text names the one to add."""
    draw(tmp_path / "train" / "sad" / "1.png")
    assert refusal(f"folder:{tmp_path}") == (
        f"{tmp_path}: no test split; add a sub-folder test beside those that are there."
    )


def test_strange_folders_are_noted(tmp_path: Path) -> None:
    """Folders that are no emotion are left out and named in a note."""
    draw(tmp_path / "fear" / "1.png")
    draw(tmp_path / "bored" / "1.png")
    draw(tmp_path / ".cache" / "1.png")
    faces = load_dataset(f"folder:{tmp_path}")
    assert faces.ids == ("fear/1.png",)
    assert faces.notes == ("folders not named after an emotion were left out: .cache, bored",)


def test_every_ending_of_pictures_counts(tmp_path: Path) -> None:
    """Whatever `predict` opens is read, so that no emotion vanishes; files with other endings are counted in a note."""
    draw(tmp_path / "sad" / "1.png")
    for suffix in sorted(PICTURE_SUFFIXES - {".gif", ".avif"}):
        draw(tmp_path / "fear" / f"1{suffix.upper()}")
    for name in ("1.heic", "2.HEIC", "Thumbs.db", "README"):
        (tmp_path / "fear" / name).touch()
    faces = load_dataset(f"folder:{tmp_path}")
    assert faces.counts == {"fear": len(PICTURE_SUFFIXES) - 2, "sadness": 1}
    left = ".heic (2), none (1), .db (1)"
    assert sorted(faces.notes) == [f"files whose names do not end as those of pictures were left out: {left}"]
    assert list_folder(tmp_path, "test").notes == faces.notes


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    """What notebooks and other systems leave in an emotion's folder (.ipynb_checkpoints, ._1.png) is no picture."""
    draw(tmp_path / "fear" / "1.png")
    draw(tmp_path / "fear" / ".ipynb_checkpoints" / "1-checkpoint.png")
    (tmp_path / "fear" / "._1.png").write_bytes(b"\0\5\x16\7")
    faces = load_dataset(f"folder:{tmp_path}")
    assert (faces.ids, faces.skipped, faces.notes) == (("fear/1.png",), (), ())
    assert tuple(list_folder(tmp_path, "test").ids) == faces.ids


def test_links_are_read_alike_in_memory_and_streamed(tmp_path: Path) -> None:
    """Linked pictures and folders are read, a circle ends, and a link that leads nowhere is named as skipped."""
    draw(tmp_path / "else" / "9.png", 9)
    draw(tmp_path / "set" / "fear" / "1.png", 1)
    draw(tmp_path / "set" / "sad" / "2.png", 2)
    for name, target in (("more", "../../else"), ("up", ".."), ("itself.png", "itself.png"), ("gone.png", "none.png")):
        (tmp_path / "set" / "fear" / name).symlink_to(target)
    faces, files = load_dataset(f"folder:{tmp_path / 'set'}"), list_folder(tmp_path / "set", "test")
    assert faces.ids == ("fear/1.png", "fear/more/9.png", "sad/2.png")
    assert [line.split(": ")[0].rsplit("/", 1)[1] for line in faces.skipped] == ["gone.png", "itself.png"]
    assert set(files.ids) == {*faces.ids, "fear/gone.png", "fear/itself.png"}


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    """A picture whose name holds a Latin-1 é is read, streamed and hashed; its id holds an escape."""
    path = draw(tmp_path / "fear" / "1.png", 7)
    path.rename(os.fsdecode(bytes(path.parent) + b"/caf\xe9.png"))
    faces, files = load_dataset(f"folder:{tmp_path}"), list_folder(tmp_path, "test")
    assert faces.ids == tuple(files.ids) == ("fear/caf\\udce9.png",)
    assert np.array_equal(files.read(0, Names()), faces.images[0])
    size = os.path.getsize(files.file(0))
    assert size > 0
    assert files.content_hash() != replace(files, side=49).content_hash()


def test_training_where_validation_lacks_an_emotion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A small validation split selects on the emotions that it has, under training's numbers, and that is told."""
    root = write_folder(tmp_path / "set", per_class=2, emotions=("anger", "fear", "sadness"))
    shutil.rmtree(root / "validation" / "anger")
    track = Track(f"folder:{root}", "", f"folder:{root}", (), trained_on="x")
    recipe = Recipe(name="tiny", epochs=1, batch_size=2, lr=1e-3)
    run = Run(METHODS["reference_tiny"], track, recipe, Options(device="cpu"), tmp_path)
    assert run.validation_set.emotions == ("anger", "fear", "sadness")
    assert run.validation_set.labels.tolist() == [1, 1, 2, 2]
    assert f"folder:{root}: the validation split has no pictures labelled anger\n" in capsys.readouterr().err


def test_the_array_is_filled_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that do not fit into memory are refused with both figures; no second copy is made of those that do."""
    for number in range(300):
        draw(tmp_path / "fear" / f"{number}.bmp", number % 256, (224, 224), "RGB")
    tracemalloc.start()
    faces = load_dataset(f"folder:{tmp_path}")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (faces.images[:, 9, 9, 0].tolist(), faces.images[:, 9, 9, 1].max()) == (
        [int(name[5:-4]) % 256 for name in faces.ids], 0,
    )  # fmt: skip
    assert most < 1.6 * faces.images.nbytes  # a grey array is asked for first, and never filled
    monkeypatch.setattr(lists.os, "sysconf", lambda name: 1 if name == "SC_PHYS_PAGES" else 10_000_000)
    assert "300 test pictures of 224 x 224 pixels take 0.0 GB of memory, and" in refusal(f"folder:{tmp_path}")


def test_broken_pictures_are_skipped_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken picture among good ones is left out, named in the set and on standard error; the rest is loaded."""
    draw(tmp_path / "fear" / "1.png")
    broken = tmp_path / "fear" / "2.jpg"
    broken.write_text("hello")
    empty = tmp_path / "sad" / "3.png"
    empty.parent.mkdir()
    empty.write_bytes(b"")
    faces = load_dataset(f"folder:{tmp_path}")
    assert (faces.ids, faces.emotions) == (("fear/1.png",), ("fear",))
    assert [line.split(":")[0] for line in faces.skipped] == [str(broken), str(empty)]
    assert capsys.readouterr().err.splitlines() == [f"skipped {line}" for line in faces.skipped]


def test_nothing_but_broken_pictures(tmp_path: Path) -> None:
    """Where no picture can be read, the data set is refused with the first one's name and reason."""
    (tmp_path / "fear").mkdir()
    (tmp_path / "fear" / "1.jpg").write_text("hello")
    text = refusal(f"folder:{tmp_path}")
    assert text.startswith(f"{tmp_path}: none of its 1 pictures could be read; the first: {tmp_path}/fear/1.jpg: ")


def test_a_missing_folder(tmp_path: Path) -> None:
    """A folder that is not there is named, with what to give instead."""
    gone = tmp_path / "gone"
    assert refusal(f"folder:{gone}") == f"{gone}: there is no such folder; give one that has a sub-folder per emotion."


@pytest.mark.parametrize("strange", [(), ("cats", "dogs")])
def test_a_folder_without_emotions(strange: tuple[str, ...], tmp_path: Path) -> None:
    """An empty folder, or one of other things, is refused with what it has and an example of what it should have."""
    for name in strange:
        draw(tmp_path / name / "1.png")
    text = refusal(f"folder:{tmp_path}")
    assert text.startswith(f"{tmp_path}: no pictures in sub-folders named after emotions")
    assert text.endswith(f"e.g. {tmp_path.name}/happy/1.jpg.")
    assert ("(it has cats, dogs)" in text) == bool(strange)


def test_grey_pictures_stay_grey(tmp_path: Path) -> None:
    """Grey pictures give (N, S, S); one colour picture makes all (N, S, S, 3), and grey ones repeat their value."""
    draw(tmp_path / "fear" / "1.png", 77)
    assert load_dataset(f"folder:{tmp_path}").images.shape == (1, 48, 48)
    draw(tmp_path / "fear" / "2.png", 200, mode="RGB")
    faces = load_dataset(f"folder:{tmp_path}")
    assert faces.images[:, 5, 5].tolist() == [[77, 77, 77], [200, 0, 0]]


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(20, 30), (10, 10)], 48),
        ([(100, 100), (80, 300), (60, 60)], 80),
        ([(100, 90), (120, 110)], 100),
        ([(4000, 900), (900, 4000)], 224),
    ],
)
def test_the_common_side(sizes: list[tuple[int, int]], side: int, tmp_path: Path) -> None:
    """Pictures of any size become squares with the median of their shorter sides, within 48 and 224."""
    for index, size in enumerate(sizes):
        draw(tmp_path / "sad" / f"{index}.png", 50 + index, size)
    faces = load_dataset(f"folder:{tmp_path}")
    assert faces.images.shape == (len(sizes), side, side)
    assert faces.images[:, side // 2, side // 2].tolist() == [50 + index for index in range(len(sizes))]


def test_a_csv_of_relative_paths(tmp_path: Path) -> None:
    """Paths are relative to the CSV; rows keep their order; columns may be in any order with others between."""
    draw(tmp_path / "faces" / "1.png", 10)
    draw(tmp_path / "faces" / "2.png", 20)
    name = table(tmp_path / "all.csv", "emotion,who,path", "Happy,Ann,faces/2.png", "angry,Bob,faces/1.png")
    faces = load_dataset(name)
    assert (faces.ids, faces.emotions) == (("faces/2.png", "faces/1.png"), ("anger", "happiness"))
    assert (faces.labels.tolist(), faces.images[:, 0, 0].tolist()) == ([1, 0], [20, 10])


@pytest.mark.parametrize("header", ["path,emotion", "FilePath,Label", "file,label", " image , Emotion "])
@pytest.mark.parametrize(("end", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-8"), ("\r\n", "utf-8-sig")])
def test_csv_dialects(header: str, end: str, encoding: str, tmp_path: Path) -> None:
    """Usual column names, a byte-order mark, Windows line ends, quotes, blanks and blank lines are all read alike."""
    draw(tmp_path / "é, 1.png")
    faces = load_dataset(table(tmp_path / "a.csv", header, "", '"é, 1.png", sad ', "", end=end, encoding=encoding))
    assert (faces.ids, faces.emotions) == (("é, 1.png",), ("sadness",))


def test_a_csv_with_splits(tmp_path: Path) -> None:
    """The column split chooses, in any usual spelling."""
    for name in "abc":
        draw(tmp_path / f"{name}.png")
    name = table(tmp_path / "s.csv", "path,emotion,split", "a.png,sad,train", "b.png,fear,Val", "c.png,joy,test")
    ids = {split: load_dataset(name, split).ids for split in ("train", "validation", "test")}
    assert ids == {"train": ("a.png",), "validation": ("b.png",), "test": ("c.png",)}


def test_a_csv_without_splits_is_all_test(tmp_path: Path) -> None:
    """Without a column split there is no training split, and the text says how to mark one."""
    draw(tmp_path / "a.png")
    name = table(tmp_path / "a.csv", "path,emotion", "a.png,sad")
    assert refusal(name, "train") == (
        f"{tmp_path / 'a.csv'}: no rows of the train split; a column split with the value train marks them."
    )


def test_absolute_paths(tmp_path: Path) -> None:
    """An absolute path is read as it is; outside the CSV's folder it is the picture's id in full."""
    inside, outside = draw(tmp_path / "here" / "a.png"), draw(tmp_path / "there" / "b.png")
    name = table(tmp_path / "here" / "a.csv", "path,emotion", f"{inside},sad", f"{outside},sad")
    assert load_dataset(name).ids == ("a.png", str(outside))


def test_missing_pictures_are_skipped_and_named(tmp_path: Path) -> None:
    """A row whose picture is not there, or is a folder, is left out by name; the rest is loaded."""
    draw(tmp_path / "a.png")
    (tmp_path / "deep").mkdir()
    name = table(tmp_path / "a.csv", "path,emotion", "a.png,sad", "gone.png,sad", "deep,sad")
    faces = load_dataset(name)
    assert faces.ids == ("a.png",)
    assert faces.skipped == (
        f"{tmp_path / 'gone.png'}: there is no such file.",
        f"{tmp_path / 'deep'}: this is not a readable picture (it is a folder).",
    )


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        (("path,emotion", "a.png,sad", "a.png,hungry"), "line 3", "unknown emotion 'hungry'; the emotions are anger"),
        (("path,emotion", "", "", "b.png,"), "line 4", "unknown emotion ''"),
        (("path,mood", "a.png,sad"), "line 1", "the columns must be path and emotion, not path, mood"),
        (("name,emotion", "a.png,sad"), "line 1", "the columns must be path and emotion, not name, emotion"),
        (("path;emotion", "a.png;sad"), "line 1", "the columns must be path and emotion, not path;emotion"),
        (("",), "line 1", "the columns must be path and emotion, not none"),
        (("path,emotion", "a.png,sad,x"), "line 2", "3 columns where there must be 2, as in line 1"),
        (("path,emotion", "a.png"), "line 2", "1 columns where there must be 2, as in line 1"),
        (("path,emotion", ",sad"), "line 2", "the path is empty; name a picture"),
        (("path,emotion,split", "a.png,sad,dev"), "line 2", "the split must be train, validation or test, not 'dev'"),
        (("path,emotion", "a.png,sad", "a.png,fear"), "line 3", "a.png is listed twice; keep one row per picture"),
        (("path,emotion", "a.png,sad", "b/../a.png,sad"), "line 3", "b/../a.png is listed twice; keep one row per"),
        (
            ("path,emotion,split", "a.png,sad,train", "a.png,sad,test"),
            "line 3",
            "listed twice, in train and in test; k",
        ),
    ],
)
def test_a_csv_with_a_bad_line(lines: tuple[str, ...], where: str, what: str, tmp_path: Path) -> None:
    """A bad header or row is refused by file and line, with what must stand there."""
    draw(tmp_path / "a.png")
    text = refusal(table(tmp_path / "bad.csv", *lines))
    assert text.startswith(f"{tmp_path / 'bad.csv'}, {where}: ")
    assert what in text


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 9, b"path,emotion\n" + b"a" * 200_000 + b",sad\n", "path,é\n".encode("latin-1")]
)
def test_a_file_that_is_no_csv(content: bytes, tmp_path: Path) -> None:
    """A binary file, an endless field or another encoding in place of the CSV is refused by name."""
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    text = refusal(f"csv:{path}")
    assert text.startswith(f"{path}: this is not a readable UTF-8 CSV file (")
    assert text.endswith("save it as one.")


def test_a_missing_csv(tmp_path: Path) -> None:
    """A CSV that is not there is named, with what to give instead."""
    gone = tmp_path / "gone.csv"
    assert refusal(f"csv:{gone}") == f"{gone}: there is no such file; give a CSV with the columns path and emotion."


def test_the_same_pictures_as_folder_and_csv(tmp_path: Path) -> None:
    """A folder and a CSV of the same pictures in the same order have the same content hash."""
    rows = []
    for index, emotion in enumerate(("anger", "fear", "sad")):
        path = tmp_path / "set" / emotion / "1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (50, 50), dtype=np.uint8)).save(path)
        rows.append(f"set/{emotion}/1.png,{emotion}")
    name = table(tmp_path / "a.csv", "path,emotion", *rows)
    assert load_dataset(name).content_hash() == load_dataset(f"folder:{tmp_path / 'set'}").content_hash()
