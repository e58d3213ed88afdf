"""CK+'s loader on tiny trees in exactly the two usual shapes, and on broken ones."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.datasets import ckplus, lists, load_dataset
from fer_bench.datasets.base import SPLITS
from fer_bench.datasets.rendered import render
from fer_bench.emotions import EIGHT
from fer_bench.errors import DataError
from fer_bench.faces import Face, frame_of

FRAMES = 6
LABELLED = {f"S{number:03d}": number % 7 + 1 for number in range(5, 17)}
"""Twelve people and the label of their sequence 001."""
NAMES = ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
FACE = (100, 50, 260, 250)


def save(path: Path, value: int, size: tuple[int, int] = (64, 49)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(value, size))


@functools.cache
def encoded(value: int, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, value).save(file, "PNG")
    return file.getvalue()


def shade(person: str, frame: int) -> int:
    return int(person[1:]) * 10 + frame


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The official tree: labelled sequences of six frames, one unlabelled one per person, and no face anywhere."""
    monkeypatch.setattr(ckplus, "SEQUENCES", len(LABELLED))
    monkeypatch.setattr(lists, "detect_faces", lambda image: [])
    root = tmp_path / "ckplus"
    for person, label in LABELLED.items():
        for take in ("001", "002"):
            for frame in range(1, FRAMES + 1):
                name = f"{person}_{take}_{frame:08d}.png"
                save(root / "cohn-kanade-images" / person / take / name, shade(person, frame))
            (root / "cohn-kanade-images" / person / take / ".DS_Store").write_bytes(b"\0")
            (root / "Emotion" / person / take).mkdir(parents=True)
        label_file(root, person).write_text(f"   {label}.0000000e+00\n")
    return root


def label_file(root: Path, person: str) -> Path:
    return root / "Emotion" / person / "001" / f"{person}_001_{FRAMES:08d}_emotion.txt"


@pytest.fixture
def cropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CK+48: three frames of each labelled sequence, 48 x 48, in folders by emotion; the same people."""
    monkeypatch.setattr(ckplus, "SEQUENCES", len(LABELLED))
    root = tmp_path / "cropped"
    folders = {"happiness": "happy", "sadness": "sadness"}
    for person, label in LABELLED.items():
        for frame in range(FRAMES - 2, FRAMES + 1):
            folder = folders.get(NAMES[label], NAMES[label])
            save(root / "CK+48" / folder / f"{person}_001_{frame:08d}.png", shade(person, frame), (48, 48))
    return root


def people(ids: tuple[str, ...]) -> set[str]:
    return {name[:4] for name in ids}


def test_the_first_frame_is_neutral_and_the_last_three_the_emotion(tree: Path) -> None:
    """Of each labelled sequence, and of no other, frames 1, 4, 5 and 6 are there under the right emotion."""
    found = {}
    for split in SPLITS:
        faces = load_dataset("ckplus", split, tree)
        assert (faces.emotions, faces.images.shape[1:], faces.images.dtype) == (EIGHT, (96, 96), np.uint8)
        for name, label, image in zip(faces.ids, faces.labels, faces.images, strict=True):
            person, take, frame = name.split("_")
            assert (image == shade(person, int(frame))).all()
            assert take == "001"
            found[person, int(frame)] = EIGHT[label]
    wanted = {}
    for person, label in LABELLED.items():
        wanted |= {(person, 1): "neutral"} | {(person, frame): NAMES[label] for frame in (4, 5, 6)}
    assert found == wanted


def test_nobody_stands_on_two_sides(tree: Path) -> None:
    """The three splits share no person and hold them all: eight train, one validates, two or three test."""
    sides = [people(load_dataset("ckplus", split, tree).ids) for split in SPLITS]
    assert set.union(*sides) == set(LABELLED)
    assert sum(map(len, sides)) == len(LABELLED)
    assert [len(side) for side in sides] == [9, 1, 2]


def test_both_copies_divide_the_people_alike(tree: Path, cropped: Path) -> None:
    """CK+48 holds the same people on each side as the official tree, without neutral, at 48 x 48."""
    for split in SPLITS:
        official, small = load_dataset("ckplus", split, tree), load_dataset("ckplus", split, cropped)
        assert people(official.ids) == people(small.ids)
        assert set(small.ids) < set(official.ids)
        assert small.images.shape[1:] == (48, 48)
        assert small.emotions == ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "contempt")
        named = {name: official.emotions[label] for name, label in zip(official.ids, official.labels, strict=True)}
        assert [small.emotions[label] for label in small.labels] == [named[name] for name in small.ids]
        assert any("without neutral" in note for note in small.notes)


def test_random_frames_put_people_on_both_sides(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ckplus-random` has the same frames from the same folder, all in one split each, but people in several."""
    monkeypatch.setenv("FER_BENCH_DATA", str(tree.parent))
    sides = [load_dataset("ckplus-random", split) for split in SPLITS]
    names = [name for faces in sides for name in faces.ids]
    assert sorted(names) == sorted(name for split in SPLITS for name in load_dataset("ckplus", split).ids)
    assert [len(faces) for faces in sides] == [33, 5, 10]
    assert len(people(sides[0].ids) & people(sides[2].ids)) >= 6
    assert {faces.name for faces in sides} == {"ckplus-random"}


def test_the_largest_face_is_cut_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several faces the largest is kept, in the frame that FER2013 would show."""
    frame = np.full((490, 640), 10, np.uint8)
    left, top, right, bottom = frame_of(FACE)
    frame[max(top, 0) : bottom, left:right] = 200
    Image.fromarray(frame).save(tree / "one.png")
    for path in (tree / "cohn-kanade-images").rglob("*.png"):
        path.write_bytes((tree / "one.png").read_bytes())
    two = [Face((400, 50, 440, 100), 0.99), Face(FACE, 0.9)]
    monkeypatch.setattr(lists, "detect_faces", lambda image: two if image.size == (640, 490) else [])
    faces = load_dataset("ckplus", "test", tree)
    assert (faces.images == 200).all()
    assert faces.notes == ()


def test_a_real_face_is_found(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real detector a rendered face in a frame of 640 x 490 is cut out; an empty frame is noted."""
    monkeypatch.undo()
    monkeypatch.setattr(ckplus, "SEQUENCES", len(LABELLED))
    small = Image.fromarray(render("happiness", 0.7, 3, size=200)[0]).convert("L")
    shown = people(load_dataset("ckplus", "validation", tree).ids)
    (person,) = shown
    for path in (tree / "cohn-kanade-images" / person / "001").glob("*.png"):
        frame = Image.new("L", (640, 490), 90)
        if "00000001" not in path.name:
            frame.paste(small, (400, 120))
        frame.save(path)
    faces = load_dataset("ckplus", "validation", tree)
    assert faces.notes == ("no face was found in 1 validation picture(s); their centred square was kept",)
    assert (faces.images[0] == 90).all()
    face = np.asarray(small.resize((96, 96))).astype(float)
    for image in faces.images[1:]:
        assert np.corrcoef(image.ravel(), face.ravel())[0, 1] > 0.6


def test_names_in_another_case(tree: Path) -> None:
    """Folders and extensions in another case are found all the same."""
    whole = load_dataset("ckplus", "test", tree)
    for path in list((tree / "cohn-kanade-images").rglob("*.png")):
        path.rename(path.with_suffix(".PNG"))
    for person in list((tree / "cohn-kanade-images").iterdir()):
        person.rename(person.with_name(person.name.lower()))
    (tree / "cohn-kanade-images").rename(tree / "Cohn-Kanade-Images")
    (tree / "Emotion").rename(tree / "emotion")
    again = load_dataset("ckplus", "test", tree)
    assert (again.ids, again.content_hash()) == (whole.ids, whole.content_hash())


@pytest.mark.parametrize("text", ["\ufeff   3.0000000e+00\r\n", "\r\n3\r\n\r\n", "3.0"])
def test_a_label_from_windows(tree: Path, text: str) -> None:
    """A BOM, Windows line ends and empty lines in a label change nothing."""
    label_file(tree, "S009").write_bytes(text.encode())
    label_file(tree, "S009").with_name("._S009_001_00000006_emotion.txt").write_bytes(b"\0\x05\x16")
    found = {}
    for split in SPLITS:
        faces = load_dataset("ckplus", split, tree)
        found |= {name: EIGHT[label] for name, label in zip(faces.ids, faces.labels, strict=True)}
    assert found["S009_001_00000006"] == "disgust"


@pytest.mark.parametrize("text", ["8.0", "-1", "2.5", "nan", "inf", "happy", "3 4", ""])
def test_a_wrong_label_is_named(tree: Path, text: str) -> None:
    """A label that is no number from 0 to 7 is refused, whatever split was asked for, with its file and line."""
    path = label_file(tree, "S009")
    path.write_text(f"{text}\n")
    for split in SPLITS:
        with pytest.raises(DataError, match="it must hold one number from 0 to 7") as caught:
            load_dataset("ckplus", split, tree)
        assert str(caught.value).startswith(f"{path}, line 1: ")


def test_two_labels_for_one_sequence(tree: Path) -> None:
    """A sequence with two labels is refused by its folder."""
    path = label_file(tree, "S009")
    path.with_name("S009_001_00000005_emotion.txt").write_text("3.0")
    with pytest.raises(DataError, match="2 labels for one sequence") as caught:
        load_dataset("ckplus", "test", tree)
    assert str(path.parent) in str(caught.value)


def test_missing_frames_and_broken_pictures_are_reported(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sequence without frames and a torn picture are named and left out, and nobody changes sides for it; a copy
    with so few sequences is one that has to be asked for."""
    sides = {split: people(load_dataset("ckplus", split, tree).ids) for split in SPLITS}
    first, second, *_ = sorted(sides["train"])
    for path in (tree / "cohn-kanade-images" / first / "001").glob("*.png"):
        path.unlink()
    torn = tree / "cohn-kanade-images" / second / "001" / f"{second}_001_00000006.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with pytest.raises(DataError, match="11 of the 12 official labelled sequences with frames; .* FER_BENCH_PARTIAL=1"):
        load_dataset("ckplus", "train", tree)
    monkeypatch.setenv("FER_BENCH_PARTIAL", "1")
    capsys.readouterr()
    faces = load_dataset("ckplus", "train", tree)
    assert f"skipped {faces.skipped[0]}\n" in capsys.readouterr().err
    assert load_dataset("ckplus", "test", tree).skipped == ()
    assert people(faces.ids) == sides["train"] - {first}
    absent, broken = faces.skipped
    assert f"{first}/001: 0 frame(s) where 4 are needed" in absent.replace("\\", "/")
    assert f"{label_file(tree, first)}, line 1" in absent
    assert torn.name in broken
    assert f"{second}_001_00000006" not in faces.ids
    assert {split: people(load_dataset("ckplus", split, tree).ids) for split in SPLITS if split != "train"} == {
        split: side for split, side in sides.items() if split != "train"
    }


@pytest.mark.parametrize("where", ["CK+48/CK+48", "CK+48", "."])
def test_ck48_is_found_as_it_was_unpacked(cropped: Path, where: str) -> None:
    """Once or twice in a folder of its name, or in none; what a Mac puts beside the emotions' folders is no emotion."""
    whole = load_dataset("ckplus", "test", cropped)
    place = cropped / "emotions"
    (cropped / "CK+48").rename(place)
    (place / "__MACOSX").mkdir()
    (place / "__MACOSX" / "._S010_004_00000017.png").write_bytes(b"x")
    if where == ".":
        for folder in place.iterdir():
            folder.rename(cropped / folder.name)
        place.rmdir()
    else:
        (cropped / where).parent.mkdir(exist_ok=True)
        place.rename(cropped / where)
    found = load_dataset("ckplus", "test", cropped)
    assert found.content_hash() == whole.content_hash()
    (cropped / where / "Natural").mkdir()
    with pytest.raises(DataError, match="Natural: unknown emotion .*; take this folder away, or get CK"):
        load_dataset("ckplus", "test", cropped)


def test_a_root_that_is_not_there_is_missing_data(tmp_path: Path) -> None:
    """As one that is empty: what it must hold is said."""
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError, match=r"CK\+ is not in .*: it must hold"):
            load_dataset("ckplus", "test", root)


@pytest.mark.parametrize("lost", ["cohn-kanade-images", "Emotion"])
@pytest.mark.parametrize("name", ["ckplus", "ckplus-random"])
def test_what_is_missing_is_named(tree: Path, tmp_path: Path, lost: str, name: str) -> None:
    """Without frames or labels: the set, its folder and layout, whom to ask, and that a licence is agreed to."""
    (tree / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as caught:
        load_dataset(name, "test", tree)
    for part in ("CK+", str(tree), "Emotion/S005/001/*_emotion.txt", "jeffcohn.net", "licence"):
        assert part in str(caught.value)


def test_without_any_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both protocols name the one folder that they share."""
    monkeypatch.chdir(tmp_path)
    for name in ("ckplus", "ckplus-random"):
        with pytest.raises(DataError, match=r"is not in \$FER_BENCH_DATA.ckplus: "):
            load_dataset(name, "test")


def test_an_incomplete_copy(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One label too few is noted; half of them, or one too many, is no copy of CK+."""
    monkeypatch.setattr(lists, "WHOLE", 0.9)
    label_file(tree, "S009").unlink()
    note = "11 of the 12 official sequences with a label; this copy lacks 1"
    assert load_dataset("ckplus", "test", tree).notes[0] == note
    for person in ("S010", "S011", "S012"):
        label_file(tree, person).unlink()
    with pytest.raises(DataError, match=r"8 of the 12 official .* this is not a whole copy of CK\+"):
        load_dataset("ckplus", "test", tree)
    monkeypatch.setattr(ckplus, "SEQUENCES", 7)
    with pytest.raises(DataError, match="8 of the 7 official"):
        load_dataset("ckplus", "test", tree)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("happy/1.png", "its name must read like S010_004_00000017.png"),
        ("glad/S099_001_00000004.png", "unknown emotion 'glad'"),
        ("fear/s007_001_00000004.png", "the same frame is also"),
    ],
)
def test_a_wrong_file_in_ck48(cropped: Path, file: str, says: str) -> None:
    """A name without a subject, a folder that is no emotion, and a frame under two emotions are refused by name."""
    save(cropped / "CK+48" / file, 5, (48, 48))
    with pytest.raises(DataError, match=says) as caught:
        load_dataset("ckplus", "test", cropped)
    assert file.split("/")[0] in str(caught.value)
