"""Who is who: data sets of few people tell whom each picture shows, and it stays with the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.datasets import FaceSet, ckplus, clips, lists, load_dataset, tfeid
from fer_bench.datasets.rendered import draw_split
from fer_bench.emotions import FOUR, SEVEN
from fer_bench.faces import Face
from tests.datasets import test_disfa, test_mmi


def faces() -> FaceSet:
    """14 pictures of 7 people; the emotions take turns."""
    images = np.zeros((14, 4, 4), np.uint8)
    ids, subjects = tuple(f"p{index}" for index in range(14)), np.array([f"S{index // 2}" for index in range(14)])
    return FaceSet("some", "test", SEVEN, images, np.arange(14) % 7, ids, subjects=subjects)


def test_subjects_stay_with_their_pictures() -> None:
    """Taking, limiting and restricting keep each picture's subject; without subjects there stay none."""
    whole = faces()
    known = dict(zip(whole.ids, whole.subjects.tolist(), strict=True))
    for part in (whole.take([5, 2]), whole.limit(4), whole.restrict(FOUR)):
        assert part.subjects.tolist() == [known[name] for name in part.ids]
        assert 0 < len(part) < 14
    assert replace(whole, subjects=None).take([5, 2]).subjects is None


def test_subjects_of_another_number_than_the_pictures_are_refused() -> None:
    """Every picture has a subject, or none has."""
    with pytest.raises(ValueError, match="subjects must be an array of 14, one for each image"):
        replace(faces(), subjects=np.array(["a", "b", "c"]))


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (48, 48), 90).save(path)


@pytest.mark.parametrize("name", ["ckplus", "ckplus-random"])
def test_ckplus_tells_who_is_who(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of either division, the person is that of the picture's name; a picture that cannot be read shifts nobody."""
    monkeypatch.setattr(ckplus, "SEQUENCES", 10)
    for person in range(10):
        for frame in range(3):
            save(tmp_path / "CK+48" / "anger" / f"S{person:03}_001_{frame:08}.png")
    first = load_dataset(name, "test", tmp_path).ids[0]
    (tmp_path / "CK+48" / "anger" / f"{first}.png").write_bytes(b"broken")
    found = load_dataset(name, "test", tmp_path)
    assert first not in found.ids
    assert found.subjects.tolist() == [one[:4] for one in found.ids]


def test_tfeid_tells_who_is_who(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person is the one that the picture's name starts with."""
    monkeypatch.setattr(tfeid, "PEOPLE", 10)
    monkeypatch.setattr(lists, "detect_faces", lambda image: [])
    for person in range(10):
        for emotion in ("anger", "fear"):
            save(tmp_path / emotion / f"F{person:02}_{emotion}.jpg")
    found = load_dataset("tfeid", "test", tmp_path)
    assert found.subjects.tolist() == [one.rpartition("/")[2][:3].lower() for one in found.ids]
    assert len(set(found.subjects.tolist())) == 2


def test_disfa_and_mmi_tell_who_is_who(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All frames of a clip show the person of its labels; MMI's random frames are told apart by person too."""
    monkeypatch.setenv("FER_BENCH_PARTIAL", "1")  # three of DISFA's 27
    monkeypatch.setattr(clips, "detect_faces", lambda image: [Face((60, 30, 140, 130), 0.9)])  # finding is slow
    for number in (1, 2, 3):
        test_disfa.labels(tmp_path / "disfa", f"SN{number:03}", [test_disfa.REST, test_disfa.SMILE])
        test_disfa.film(tmp_path / "disfa", f"SN{number:03}", number, 2)
        test_mmi.clip(test_mmi.session(tmp_path / "mmi", number, 10 + number, 4), 10 + number)
    found = load_dataset("disfa", "test", tmp_path / "disfa")
    assert found.subjects.tolist() == [one[:5] for one in found.ids]
    for name in ("mmi", "mmi-random"):
        found = load_dataset(name, "test", tmp_path / "mmi")
        assert found.subjects.tolist() == [one.split("/")[1][:4] for one in found.ids]


def test_independent_pictures_have_no_subjects() -> None:
    """The intervals on `rendered` stay those over pictures, as in its standing records."""
    assert draw_split("test", 7).subjects is None
