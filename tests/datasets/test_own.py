"""Anyone's own pictures in folders, in good order and in bad; CSV files are in test_own_csv."""

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
from fer_bench.datasets import duplicated_in, fer2013, lists, load_dataset, rafdb
from fer_bench.datasets.base import tell
from fer_bench.datasets.lists import Names
from fer_bench.datasets.numbers import NUMBERED
from fer_bench.datasets.stream import list_folder, to_stream
from fer_bench.errors import DataError
from fer_bench.faces import HEIC_MEND, PICTURE_SUFFIXES
from fer_bench.methods import METHODS
from fer_bench.train import Options, Run
from tests.datasets.own_pictures import close, draw, refusal
from tests.helpers import write_folder


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
        f"{tmp_path}: no train split; divide the pictures: python -m fer_bench.datasets split {tmp_path} -o my.csv."
    )


def test_a_missing_split_folder(tmp_path: Path) -> None:
    """Where some split folders are there and the wanted one is not, the text names the one to add."""
    draw(tmp_path / "train" / "sad" / "1.png")
    assert refusal(f"folder:{tmp_path}") == (
        f"{tmp_path}: no test split; add a sub-folder test beside those that are there, or divide them: "
        f"python -m fer_bench.datasets split {tmp_path} -o my.csv."
    )


def test_splits_are_known_in_any_case_and_by_usual_names(tmp_path: Path) -> None:
    """Training, DEV and PrivateTest are the splits; FER2013's own names are among the usual ones."""
    for value, folder in enumerate(("Training", "DEV", "PrivateTest"), 1):
        draw(tmp_path / folder / "sad" / "1.png", value)
    found = [load_dataset(f"folder:{tmp_path}", split).images[0, 0, 0] for split in ("train", "validation", "test")]
    assert found == [1, 2, 3]


def test_splits_that_contradict_each_other(tmp_path: Path) -> None:
    """Two folders for one split are refused, and so is one folder that a link makes two splits."""
    for folder in ("val", "validation", "test"):
        draw(tmp_path / folder / "sad" / "1.png")
    for split in ("validation", "test"):
        assert refusal(f"folder:{tmp_path}", split) == (
            f"{tmp_path}: val and validation are both the validation split; put all into one."
        )
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "train").symlink_to("test")
    assert refusal(f"folder:{tmp_path}", "train") == (
        f"{tmp_path}: test and train are one folder; each split needs its own pictures."
    )


def test_a_folder_that_is_nearly_called_like_a_split(tmp_path: Path) -> None:
    """Where a split is not there, a folder whose name is near is named, beside others and alone."""
    draw(tmp_path / "train" / "sad" / "1.png")
    draw(tmp_path / "Test_set" / "sad" / "1.png")
    assert refusal(f"folder:{tmp_path}") == f"{tmp_path}: no test split; call Test_set test if it is that split."
    assert load_dataset(f"folder:{tmp_path}", "train").notes == ("folders beside the splits were left out: Test_set",)
    shutil.rmtree(tmp_path / "train")
    assert refusal(f"folder:{tmp_path}").endswith(" (it has Test_set); call Test_set test if it is that split.")


def test_loose_pictures_are_noted(tmp_path: Path) -> None:
    """Pictures that lie in no emotion's folder, beside the splits or beside the emotions, are counted in a note."""
    for name in ("1.png", "test/2.JPG", "test/sad/3.png", ".4.png"):
        draw(tmp_path / name)
    (tmp_path / "list.txt").touch()
    assert load_dataset(f"folder:{tmp_path}").notes == ("pictures in no emotion's folder were left out: 2",)


def test_a_picture_counts_once_whatever_links_lead_to_it(tmp_path: Path) -> None:
    """A linked folder or picture of the same emotion is left out with a note; one of another is refused."""
    draw(tmp_path / "set" / "happy" / "1.png")
    (tmp_path / "set" / "happy" / "2.png").symlink_to("1.png")
    (tmp_path / "set" / "joy").symlink_to("happy")
    faces = load_dataset(f"folder:{tmp_path / 'set'}")
    assert faces.ids == tuple(list_folder(tmp_path / "set", "test").ids) == ("happy/1.png",)
    assert faces.notes == ("links to pictures that are there already were left out: 3",)
    (tmp_path / "set" / "sad").symlink_to("happy")
    assert refusal(f"folder:{tmp_path / 'set'}") == (
        f"{tmp_path}/set/sad/1.png: this picture stands under happiness too, through a link; keep one of them."
    )


@pytest.mark.parametrize("closed", ["", "sad", "sad/deep"])
def test_a_folder_that_cannot_be_listed_is_named(closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pictures do not vanish from the set, in memory or streamed: it is refused by that folder's name."""
    draw(tmp_path / "sad" / "deep" / "1.png")
    draw(tmp_path / "fear" / "1.png")
    close(tmp_path / closed, monkeypatch)
    text = refusal(f"folder:{tmp_path}")
    assert text == f"{tmp_path / closed}: this cannot be listed (Permission denied); make it readable or take it away."
    with pytest.raises(DataError) as caught:
        to_stream(f"folder:{tmp_path}", "test")
    assert str(caught.value) == text


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
    left = f".heic (2), none (1), .db (1); {HEIC_MEND}"
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


@pytest.mark.parametrize("deeper", ["fer2013", "archive/fer2013"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_path_that_is_too_high_is_told_the_right_one(split: str, deeper: str, tmp_path: Path) -> None:
    """As where a data set's archive was unpacked into a folder of its own, with splits or numbers or without."""
    for value, name in enumerate(("train/happy", "train/sad", "test/happy", "test/sad")):
        draw(tmp_path / "a" / deeper / name / "1.png", value)
        draw(tmp_path / "b" / deeper / name.split("/")[1] / f"{value}.png", value)
        draw(tmp_path / "c" / deeper / name.replace("happy", "3").replace("sad", "4") / "1.png", value)
    for top in "abc":
        text = refusal(f"folder:{tmp_path / top}", split)
        assert text.startswith(f"{tmp_path / top}: no ")
        assert text.endswith(f"; give {tmp_path / top / deeper}, which has them.")
    assert len(load_dataset(f"folder:{tmp_path / 'a' / deeper}", "test")) == 2


def test_a_folder_for_each_person_has_no_one_path(tmp_path: Path) -> None:
    """The first person's would be all that is judged: a CSV is named, and the column that says who is who."""
    for person in ("S00", "S01", "S02"):
        for emotion in ("happy", "sad"):
            draw(tmp_path / person / emotion / "1.png")
    text = refusal(f"folder:{tmp_path}")
    assert f"; 3 folders in it have them, the first {tmp_path / 'S00'}: list all pictures in a CSV" in text


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("inner", "says"),
    [
        ("angry/happy", "angry/happy: a folder of happiness lies in that of anger; move it out beside it, or give"),
        ("angry/take/Sad", "angry/take/Sad: a folder of sadness lies in that of anger; move it out beside it, or"),
        ("angry/test", "angry/test: the test split lies in an emotion's folder; put the emotions into the splits"),
        ("sad/a/Train", "sad/a/Train: the train split lies in an emotion's folder; put the emotions into the splits"),
    ],
)
def test_what_lies_in_an_emotions_folder_is_not_called_otherwise(
    inner: str, says: str, streamed: bool, tmp_path: Path
) -> None:
    """A folder of another emotion or of a split would lose what its name says: it is refused, and the mend is said."""
    for emotion in ("angry", "sad"):
        draw(tmp_path / emotion / "1.png")
        draw(tmp_path / emotion / f"{emotion}ly".replace("angryly", "anger").replace("sadly", "sad") / "2.png")
    assert len(load_dataset(f"folder:{tmp_path}")) == 4
    draw(tmp_path / inner / "2.png")
    with pytest.raises(DataError, match="lies in") as refused:
        list_folder(tmp_path, "test") if streamed else load_dataset(f"folder:{tmp_path}")
    assert f"{tmp_path}/{says}" in str(refused.value)


def test_a_splits_own_name_below_its_emotions_is_no_other_split(tmp_path: Path) -> None:
    """test/angry/test/1.png is of the test split, whatever is read; test/angry/train/1.png is not said to be."""
    for name in ("train/angry", "train/sad", "test/angry/test", "test/sad"):
        draw(tmp_path / name / "1.png")
    assert len(load_dataset(f"folder:{tmp_path}", "test")) == 2
    draw(tmp_path / "test/sad/train/1.png")
    assert "the train split lies in an emotion's folder" in refusal(f"folder:{tmp_path}", "test")


def test_a_split_whose_emotions_lie_deeper(tmp_path: Path) -> None:
    """No other path would give all splits: what to move is said."""
    for name in ("train/faces/happy", "train/faces/sad", "test/happy", "test/sad"):
        draw(tmp_path / name / "1.png")
    text = refusal(f"folder:{tmp_path}", "train")
    assert text.endswith(f"(it has faces); move what is in {tmp_path / 'train' / 'faces'} up into it.")


@pytest.mark.parametrize(
    ("numbers", "order"),
    [
        (range(7), "if it is FER2013's numbering, 0 anger, 1 disgust, 2 fear, 3 happiness, 4 sadness, 5 surprise, "),
        (range(1, 8), "if it is RAF-DB's numbering, 1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger"),
        (range(8), "its data set's description says which is which)."),
    ],
)
def test_numbered_folders_are_to_be_named(numbers: range, order: str, tmp_path: Path) -> None:
    """What a number means is never guessed; the order of the set that is known to number so is shown."""
    for number in numbers:
        draw(tmp_path / "flat" / str(number) / "1.png", number)
        draw(tmp_path / "split" / "train" / str(number) / "1.png", number)
    for name, split in (("flat", "test"), ("flat", "train"), ("split", "train")):
        text = refusal(f"folder:{tmp_path / name}", split)
        assert "; a number names no emotion: rename each of these folders to its emotion (" in text
        assert order in text


def test_the_order_of_numbered_folders_is_the_data_sets() -> None:
    """What is shown of RAF-DB and FER2013 is what their own loaders read."""
    assert NUMBERED[tuple("1234567")][1] == rafdb.LABELS
    assert NUMBERED[tuple("0123456")][1] == fer2013.CARD.emotions


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_same_file_is_found_in_a_split_of_another_size(mode: str, tmp_path: Path) -> None:
    """A test picture that also stands in train counts as such, whatever size and colour the others make it."""
    rng = np.random.default_rng(0)
    for number in range(3):
        same = rng.integers(0, 256, (64, 60), dtype=np.uint8)
        for split in ("train", "test"):
            path = tmp_path / split / "sad" / f"{split}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(same).save(path)
    for split, side in (("train", 80), ("test", 70)):
        for number in range(5):
            draw(
                tmp_path / split / "fear" / f"{number}.png",
                number + side,
                (side, side),
                "L" if split == "train" else mode,
            )
    train, test = (load_dataset(f"folder:{tmp_path}", split) for split in ("train", "test"))
    assert train.images.shape[1:] != test.images.shape[1:]
    assert dict(zip(test.ids, duplicated_in(test, train).tolist(), strict=True)) == {
        name: name.startswith("sad") for name in test.ids
    }


def test_a_class_that_is_left_out_is_told_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt folder does not vanish without a word, in memory or streamed; the emotion it is near to is named."""
    for folder in ("Surprize", "happy", "sad"):
        draw(tmp_path / "train" / folder / "1.png")
    files, faces = list_folder(tmp_path, "train"), load_dataset(f"folder:{tmp_path}", "train")
    note = "folders not named after an emotion were left out: Surprize (surprise, misspelt?)"
    assert faces.notes == files.notes == (note,)
    assert capsys.readouterr().err == f"folder:{tmp_path} (train): {note}\n"
    tell.cache_clear()
    list_folder(tmp_path, "train")
    assert capsys.readouterr().err == f"folder:{tmp_path} (train): {note}\n"


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
