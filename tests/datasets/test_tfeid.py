"""TFEID's loader on tiny trees of emotion folders, and on broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.datasets import lists, load_dataset, tfeid
from fer_bench.datasets.base import SPLITS
from fer_bench.emotions import EIGHT
from fer_bench.errors import DataError
from fer_bench.faces import Face, frame_of

PEOPLE = [f"{sex}{number:02d}" for sex in "fm" for number in range(1, 6)]
CODES = dict(zip(EIGHT, ("ag", "dg", "fg", "hg", "sg", "pg", "ng", "cg"), strict=True))


def save(path: Path, person: str, emotion: str) -> None:
    """A 60 x 75 picture whose red tells the emotion and whose green tells the person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (EIGHT.index(emotion) * 30, PEOPLE.index(person) * 20, 99)
    Image.new("RGB", (60, 75), colour).save(path, "JPEG", quality=95)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder per emotion, a picture per person in each, and no face anywhere."""
    monkeypatch.setattr(tfeid, "PEOPLE", len(PEOPLE))
    monkeypatch.setattr(lists, "detect_faces", lambda image: [])
    for emotion in EIGHT:
        for person in PEOPLE:
            save(tmp_path / "tfeid" / emotion / f"{person}_0_{CODES[emotion]}1.jpg", person, emotion)
    return tmp_path / "tfeid"


def everything(root: Path) -> dict[str, str]:
    """Sample -> emotion over all splits."""
    sets = [load_dataset("tfeid", split, root) for split in SPLITS]
    return {name: EIGHT[label] for faces in sets for name, label in zip(faces.ids, faces.labels, strict=True)}


def people(ids: tuple[str, ...]) -> set[str]:
    return {name.rpartition("/")[2][:3] for name in ids}


def test_nobody_stands_on_two_sides(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below $FER_BENCH_DATA: seven people train, one validates, two test; every picture is there once."""
    monkeypatch.setenv("FER_BENCH_DATA", str(tree.parent))
    sets = [load_dataset("tfeid", split) for split in SPLITS]
    sides = [people(faces.ids) for faces in sets]
    assert [len(side) for side in sides] == [7, 1, 2]
    assert set.union(*sides) == set(PEOPLE)
    assert [len(faces) for faces in sets] == [56, 8, 16]
    for faces in sets:
        assert (faces.emotions, faces.images.shape[1:], faces.images.dtype) == (EIGHT, (96, 96, 3), np.uint8)
        assert (np.abs(faces.images[:, 40, 40, 0] - faces.labels * 30) <= 3).all()
        greens = np.array([PEOPLE.index(name.rpartition("/")[2][:3]) for name in faces.ids]) * 20
        assert (np.abs(faces.images[:, 40, 40, 1] - greens) <= 3).all()
        (note,) = faces.notes
        assert note == f"no face was found in {len(faces)} {faces.split} picture(s); their centred square was kept"


@pytest.mark.parametrize("shape", ["{0}_h/{1}", "TFEID/{0} (slight)/0 degrees/{1}", "high/{0}/{1}"])
def test_other_folder_names(tree: Path, tmp_path: Path, shape: str) -> None:
    """The nearest folder whose first word is an emotion counts, whatever stands behind, around and below it."""
    for picture in sorted(tree.rglob("*.jpg")):
        target = tmp_path / "other" / shape.format(picture.parent.name.title(), picture.name.upper())
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.rename(target)
    found = everything(tmp_path / "other")
    assert len(found) == 80
    for name, emotion in found.items():
        assert emotion in name.lower()


def test_without_emotion_folders_the_names_tell(tree: Path, tmp_path: Path) -> None:
    """In folders that say nothing, the letters at the end of a picture's name are its emotion."""
    (tmp_path / "flat/pictures").mkdir(parents=True)
    for picture in sorted(tree.rglob("*.jpg")):
        picture.rename(tmp_path / "flat/pictures" / picture.name)
    found = everything(tmp_path / "flat")
    assert {name.rpartition("_")[2][:2] for name in found} == set(CODES.values())
    assert all(CODES[emotion] == name.rpartition("_")[2][:2] for name, emotion in found.items())
    assert len(found) == 80


def test_two_pictures_that_differ_in_their_endings_have_two_names(tree: Path) -> None:
    """f01_0_ag1.jpg keeps the name without its ending, and f01_0_ag1.png beside it is called in full."""
    Image.new("RGB", (60, 75)).save(tree / "anger" / "f01_0_ag1.png")
    found = everything(tree)
    assert len(found) == 81
    assert {"anger/f01_0_ag1", "anger/f01_0_ag1.png"} < set(found)


def test_pictures_of_no_emotion_are_noted(tree: Path) -> None:
    """A picture that neither its folder nor its name places is left out, and whoever reads a figure is told."""
    save(tree / "extra" / "f01_front.jpg", "f01", "anger")
    (tree / "anger" / "Thumbs.db").write_bytes(b"\0")
    (tree / "anger" / "._f01_0_ag1.jpg").write_bytes(b"\0")
    faces = load_dataset("tfeid", "test", tree)
    assert "1 picture(s) whose folder and name tell no emotion were left out" in faces.notes
    assert len(everything(tree)) == 80


def test_the_largest_face_is_cut_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several faces the largest is kept, in the frame that FER2013 would show."""
    box = (10, 12, 40, 50)
    left, top, right, bottom = frame_of(box)
    for path in tree.rglob("*.jpg"):
        pixels = np.full((75, 60, 3), 10, np.uint8)
        pixels[top:bottom, left:right] = (200, 100, 50)
        Image.fromarray(pixels).save(path.with_suffix(".png"))
        path.unlink()
    monkeypatch.setattr(lists, "detect_faces", lambda image: [Face(box, 0.8), Face((41, 60, 50, 70), 0.9)])
    faces = load_dataset("tfeid", "test", tree)
    assert (faces.images == (200, 100, 50)).all()
    assert faces.notes == ()


def test_bad_pictures_are_reported_and_skipped(tree: Path) -> None:
    """A torn picture is named and left out; the others stay where they are."""
    whole = load_dataset("tfeid", "test", tree)
    torn = tree / f"{whole.ids[3]}.jpg"
    torn.write_bytes(b"no picture")
    faces = load_dataset("tfeid", "test", tree)
    assert faces.ids == whole.ids[:3] + whole.ids[4:]
    (line,) = faces.skipped
    assert line.startswith(f"{torn}: this is not a readable picture")


def test_names_that_tell_no_person(tree: Path) -> None:
    """A picture whose name does not start with a person's is refused by name, as it could stand on two sides."""
    save(tree / "anger" / "angry.jpg", "f01", "anger")
    with pytest.raises(DataError, match="angry.jpg: its name must start with the person's, as in f01_....jpg"):
        load_dataset("tfeid", "test", tree)


def test_names_that_number_the_pictures(tree: Path) -> None:
    """More persons than TFEID has means that the names number the pictures: no split by subject can be made."""
    for index, picture in enumerate(sorted(tree.rglob("*.jpg"))):
        picture.rename(picture.with_name(f"{index:04d}_a.jpg"))
    with pytest.raises(DataError, match="80 different persons where TFEID has 10, so they cannot be split by subject"):
        load_dataset("tfeid", "test", tree)


def test_missing_people_are_noted(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy without some of the people is refused unless a part is asked for; whoever reads a figure is told then."""
    for picture in tree.rglob("m05_*"):
        picture.unlink()
    with pytest.raises(DataError, match="9 of the 10 official people; .* or set FER_BENCH_PARTIAL=1 to work with"):
        load_dataset("tfeid", "test", tree)
    monkeypatch.setenv("FER_BENCH_PARTIAL", "1")
    assert "9 of the 10 official people; this copy lacks 1" in load_dataset("tfeid", "test", tree).notes


@pytest.mark.parametrize("given", ["absent", "empty", "none"])
def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """Without pictures: the set, its folder and layout, whom to ask, and that a licence is agreed to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        load_dataset("tfeid", "test", None if given == "none" else tmp_path / given)
    folder = "$FER_BENCH_DATA" if given == "none" else str(tmp_path / given)
    for part in ("TFEID", folder, "anger/f01_....jpg", "Brain Mapping Laboratory", "licence"):
        assert part in str(caught.value)
