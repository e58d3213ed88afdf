"""RAF-DB's loader on tiny trees in exactly the official shape, and on broken ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import evaluate
from fer_bench.datasets import DATASETS, forbid_split, lists, load_dataset, rafdb
from fer_bench.datasets.splits import a_tenth
from fer_bench.emotions import SEVEN
from fer_bench.errors import DataError
from fer_bench.protocols import TRACKS

TRAIN = {f"train_{number:05d}": 1 + number % 7 for number in range(1, 41)}
TEST = {f"test_{number:04d}": 1 + number % 7 for number in range(1, 15)}
HELD = [name for name, held in zip(TRAIN, a_tenth(list(TRAIN)), strict=True) if held]


def save(path: Path, label: int, number: int) -> None:
    """A 100 x 100 JPEG whose red tells the label and whose green tells the number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 100), (label * 30, number * 4, 128)).save(path, "JPEG", quality=95)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """basic/EmoLabel/list_patition_label.txt and basic/Image/aligned/*_aligned.jpg of a little RAF-DB."""
    monkeypatch.setattr(rafdb, "OFFICIAL", {"train": len(TRAIN), "test": len(TEST)})
    monkeypatch.setattr(lists, "WHOLE", 0.75)
    entries = TRAIN | TEST
    for index, (name, label) in enumerate(entries.items()):
        save(tmp_path / "rafdb/basic/Image/aligned" / f"{name}_aligned.jpg", label, index)
    write_list(tmp_path / "rafdb", [f"{name}.jpg {label}" for name, label in entries.items()])
    return tmp_path / "rafdb"


def write_list(root: Path, lines: list[str], end: str = "\n", encoding: str = "utf-8") -> Path:
    """The list of labels, from these lines."""
    path = root / "basic/EmoLabel/list_patition_label.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


def lines_of(root: Path) -> list[str]:
    return (root / "basic/EmoLabel/list_patition_label.txt").read_text().splitlines()


def test_test_is_the_official_test(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, below $FER_BENCH_DATA: the pictures of the list's test part, with RAF's labels in our names."""
    monkeypatch.setenv("FER_BENCH_DATA", str(tree.parent))
    faces = load_dataset("rafdb", "test")
    assert (faces.name, faces.split, faces.emotions) == ("rafdb", "test", SEVEN)
    assert (faces.images.shape, faces.images.dtype) == ((14, 100, 100, 3), np.uint8)
    assert faces.ids == tuple(TEST)
    raf = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    assert [SEVEN[label] for label in faces.labels] == [raf[label - 1] for label in TEST.values()]
    assert (np.abs(faces.images[:, 50, 50, 0] - np.array(list(TEST.values())) * 30) <= 3).all()
    assert (faces.skipped, faces.notes) == ((), ())


def test_a_fixed_tenth_of_train_validates(tree: Path) -> None:
    """Train and validation together are the official train part, apart, and which is which goes by the name."""
    train, validation = (load_dataset("rafdb", split, tree) for split in ("train", "validation"))
    assert list(validation.ids) == HELD
    assert sorted([*train.ids, *validation.ids]) == sorted(TRAIN)
    assert 0 < len(validation) < len(train)


@pytest.mark.parametrize("top", ["DATASET", "."])
def test_pictures_sorted_by_label_are_the_same_set(tree: Path, top: str) -> None:
    """As they go round on Kaggle: RAF's numbers as folders, the official names, the same splits and content."""
    official = {split: load_dataset("rafdb", split, tree) for split in ("train", "validation", "test")}
    for name, label in (TRAIN | TEST).items():
        picture = tree / "basic/Image/aligned" / f"{name}_aligned.jpg"
        folder = tree / top / name.partition("_")[0] / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        picture.rename(folder / picture.name)
    shutil.rmtree(tree / "basic")
    for split, faces in official.items():
        found = load_dataset("rafdb", split, tree)
        assert (found.ids, found.content_hash()) == (faces.ids, faces.content_hash())
    first = next((tree / top / "test").glob("*/*.jpg"))
    other = tree / top / "test" / ("1" if first.parent.name != "1" else "2") / first.name
    shutil.copy(first, other)
    with pytest.raises(DataError, match=r"the same picture is also .*; get RAF-DB again"):
        load_dataset("rafdb", "test", tree)
    other.rename(other.with_name("train_00001_aligned.jpg"))
    with pytest.raises(DataError, match=r"its name must read like test_00001_aligned\.jpg"):
        load_dataset("rafdb", "test", tree)
    other.with_name("train_00001_aligned.jpg").unlink()
    (tree / top / "train" / "8").mkdir()
    with pytest.raises(DataError, match=r"the folders must be 1 to 7, RAF-DB's labels; take this one away"):
        load_dataset("rafdb", "train", tree)
    (tree / top / "train" / "8").rmdir()
    for picture in [*(tree / top / "train" / "3").iterdir(), *(tree / top / "train" / "4").iterdir()]:
        picture.unlink()
    with pytest.raises(DataError, match="official train pictures; this is not a whole copy"):
        load_dataset("rafdb", "train", tree)


def test_the_card_counts_the_official_list() -> None:
    """The counts on the card are those of the official names under the rule."""
    held = int(a_tenth([f"train_{number:05d}" for number in range(1, 12_272)]).sum())
    assert dict(DATASETS["rafdb"].card.counts) == {"train": 12_271 - held, "validation": held, "test": 3_068}


def test_a_copy_of_the_official_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole list of 15,339 lines is accepted without a note, and gives 3,068 test pictures."""
    save(tmp_path / "one.jpg", 3, 5)
    one = lists.open_picture(tmp_path / "one.jpg")
    monkeypatch.setattr(lists, "open_picture", lambda path: one)  # decoding the same one 3,068 times is slow
    names = [f"train_{n:05d}" for n in range(1, 12_272)] + [f"test_{n:04d}" for n in range(1, 3_069)]
    write_list(tmp_path, [f"{name}.jpg {1 + index % 7}" for index, name in enumerate(names)])
    folder = tmp_path / "basic/Image/aligned"
    folder.mkdir(parents=True)
    for name in names[12_271:]:
        os.link(tmp_path / "one.jpg", folder / f"{name}_aligned.jpg")
    faces = load_dataset("rafdb", "test", tmp_path)
    assert (len(faces), faces.notes, faces.skipped) == (3_068, (), ())


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r\n\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_list_from_windows(tree: Path, ends: str, encoding: str) -> None:
    """A BOM, Windows line ends, empty lines and blanks after a label change nothing."""
    whole = load_dataset("rafdb", "train", tree)
    write_list(tree, ["", *(f"{line} " for line in lines_of(tree)), "  "], ends, encoding)
    assert load_dataset("rafdb", "train", tree).content_hash() == whole.content_hash()


def test_names_in_another_case(tree: Path) -> None:
    """Folders, files and extensions in another case are found all the same."""
    whole = load_dataset("rafdb", "test", tree)
    aligned = tree / "basic/Image/aligned"
    for path in list(aligned.iterdir()):
        path.rename(path.with_name(path.name.upper()))
    aligned.rename(aligned.with_name("Aligned"))
    (tree / "basic/EmoLabel/list_patition_label.txt").rename(tree / "basic/EmoLabel/List_Patition_Label.TXT")
    (tree / "basic/EmoLabel").rename(tree / "basic/emolabel")
    (tree / "basic").rename(tree / "Basic")
    again = load_dataset("rafdb", "test", tree)
    assert (again.ids, again.content_hash()) == (whole.ids, whole.content_hash())


def test_the_folder_basic_itself_will_do(tree: Path) -> None:
    """`root` may be the folder inside."""
    assert load_dataset("rafdb", "test", tree / "basic").ids == tuple(TEST)


@pytest.mark.parametrize("lost", ["", "basic/EmoLabel", "basic/Image", "basic/EmoLabel/list_patition_label.txt"])
def test_what_is_missing_is_named(tree: Path, tmp_path: Path, lost: str) -> None:
    """Without its folder, list or pictures: the set, the layout, whom to ask, and that a licence is agreed to."""
    (tree / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as caught:
        load_dataset("rafdb", "test", tree)
    for part in ("RAF-DB", str(tree), "basic/EmoLabel/list_patition_label.txt", "whdeng.cn", "licence"):
        assert part in str(caught.value)


def test_without_any_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no data at all, the folder to make is named."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"RAF-DB \(basic\) is not in \$FER_BENCH_DATA.rafdb"):
        load_dataset("rafdb", "test")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("train_00009.jpg 0", "the label must be 1 to 7, not '0'"),
        ("train_00009.jpg 8", "the label must be 1 to 7, not '8'"),
        ("train_00009.jpg -1", "the label must be 1 to 7, not '-1'"),
        ("train_00009.jpg happy", "the label must be 1 to 7, not 'happy'"),
        ("train_00009.jpg", "an entry reads like 'train_00001.jpg 5'"),
        ("valid_00009.jpg 3", "an entry reads like 'train_00001.jpg 5'"),
        ("train_x.jpg 3", "an entry reads like 'train_00001.jpg 5'"),
        ("../../etc/train_00009.jpg 3", "an entry reads like 'train_00001.jpg 5'"),
        ("train_00003.jpg 4", "train_00003 stands in the list twice"),
    ],
)
def test_a_wrong_line_is_named(tree: Path, entry: str, says: str) -> None:
    """A label out of range, a line that is no entry and a picture listed twice: the list and its line are named."""
    lines = lines_of(tree)
    lines[8] = entry
    path = write_list(tree, lines)
    with pytest.raises(DataError) as caught:
        load_dataset("rafdb", "test", tree)
    assert str(caught.value).startswith(f"{path}, line 9: ")
    assert says in str(caught.value)


def test_a_list_that_is_no_text(tree: Path) -> None:
    """A list in another encoding is refused by name."""
    path = write_list(tree, lines_of(tree), encoding="utf-16")
    with pytest.raises(DataError, match="is not a readable UTF-8 text file") as caught:
        load_dataset("rafdb", "test", tree)
    assert str(path) in str(caught.value)


def test_bad_pictures_are_reported_and_skipped(tree: Path) -> None:
    """An absent picture and a torn one are left out and named with the line that lists them; the others stay."""
    whole = load_dataset("rafdb", "test", tree)
    aligned = tree / "basic/Image/aligned"
    (aligned / "test_0002_aligned.jpg").unlink()
    torn = aligned / "test_0005_aligned.jpg"
    torn.write_bytes(torn.read_bytes()[:100])
    faces = load_dataset("rafdb", "test", tree)
    assert faces.ids == tuple(name for name in TEST if name not in ("test_0002", "test_0005"))
    kept = [index for index, name in enumerate(TEST) if name in faces.ids]
    assert faces.content_hash() == whole.take(kept).content_hash()
    absent, broken = faces.skipped
    assert "test_0002_aligned.jpg: there is no such file" in absent
    assert "list_patition_label.txt, line 42" in absent
    assert "test_0005_aligned.jpg" in broken
    assert "line 45" in broken


def test_too_many_broken_pictures(tree: Path) -> None:
    """A copy that lacks too many pictures is refused with the count and the first of them."""
    for number in range(1, 8):
        (tree / f"basic/Image/aligned/test_{number:04d}_aligned.jpg").unlink()
    with pytest.raises(DataError, match="7 of the 14 test pictures cannot be read, the first: .*test_0001_aligned"):
        load_dataset("rafdb", "test", tree)


def test_a_shorter_list_is_noted(tree: Path) -> None:
    """A list that lacks an official picture is read, and whoever reads a figure is told."""
    write_list(tree, [line for line in lines_of(tree) if not line.startswith("test_0003")])
    faces = load_dataset("rafdb", "test", tree)
    assert faces.notes == ("13 of the 14 official test pictures; this copy lacks 1",)
    assert len(faces) == 13
    assert load_dataset("rafdb", "train", tree).notes == ()


@pytest.mark.parametrize("change", ["half", "more"])
def test_another_list_is_refused(tree: Path, change: str) -> None:
    """Far fewer entries than the official ones, or more, is not RAF-DB."""
    lines = lines_of(tree)
    write_list(tree, lines[:45] if change == "half" else [*lines, "test_0099.jpg 3"])
    with pytest.raises(DataError, match="of the 14 official test pictures; this is not a whole copy of RAF-DB"):
        load_dataset("rafdb", "test", tree)


def test_a_part_is_taken_where_that_is_asked_for(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the variable with which a short list and pictures that are gone are taken all the same."""
    write_list(tree, lines_of(tree)[:45])
    with pytest.raises(DataError, match=r"get it again, or set FER_BENCH_PARTIAL=1 to work with this part\.$"):
        load_dataset("rafdb", "test", tree)
    monkeypatch.setenv("FER_BENCH_PARTIAL", "1")
    faces = load_dataset("rafdb", "test", tree)
    assert (faces.ids, faces.notes) == (tuple(TEST)[:5], ("5 of the 14 official test pictures; this copy lacks 9",))
    for name in ("test_0001", "test_0003", "test_0004"):
        (tree / f"basic/Image/aligned/{name}_aligned.jpg").unlink()
    assert load_dataset("rafdb", "test", tree).ids == ("test_0002", "test_0005")


@pytest.mark.parametrize("name", ["rafdb", "affectnet", "affectnet-7", "ckplus", "ckplus-random", "tfeid"])
def test_a_track_without_its_data_is_skipped_with_the_mend(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`evaluate --all` goes on without a licensed set that is not here: where it belongs and whom to ask is said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "weights_for", lambda *_: tmp_path)
    card = DATASETS[TRACKS[name].dataset].card
    written, skipped = evaluate.evaluate(["deep_emotion"], [name], tmp_path)
    assert written == 0
    (line,) = skipped
    assert line.startswith(f"{name}: {card.title} is not in $FER_BENCH_DATA{os.sep}{card.name.split('-')[0]}: ")
    assert card.source in line
    assert card.licence in line


@pytest.mark.parametrize("name", ["rafdb", "affectnet", "ckplus", "ckplus-random", "tfeid"])
def test_a_forbidden_split_cannot_be_read(name: str, tmp_path: Path) -> None:
    """While the test split is forbidden, no loader gives it, before it looks for any file."""
    with forbid_split("test"), pytest.raises(RuntimeError, match="the test split must not be read here"):
        load_dataset(name, "test", root=tmp_path)
