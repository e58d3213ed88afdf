"""MMI: sessions with XML labels, representative frames, the largest face, two ways to split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fer_bench.datasets import DATASETS, clips, load_dataset, mmi, splits
from fer_bench.datasets.base import forbid_split
from fer_bench.emotions import SIX
from fer_bench.errors import DataError
from fer_bench.faces import Face
from tests.datasets.films import posed, write_avi, write_sound

SPLITS = ("train", "validation", "test")
XML = '<?xml version="1.0" encoding="utf-8"?>\n'


def session(
    root: Path, number: int, subject: int, emotion: int | str | None, own: bool = False, view: str = "0"
) -> Path:
    """The XML of a session in the official shape, the label in session.xml or in the clip's own file. Its folder."""
    folder = root / "Sessions" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    tag = "" if emotion is None else f'  <Metatag Name="Emotion" Value="{emotion}"/>\n'
    body = f'<session sessionId="{number}">\n  <subject id="{subject}"/>\n  <track view="{view}" filename="x.avi"/>\n'
    (folder / "session.xml").write_text(XML + body + ("" if own else tag) + "</session>\n")
    if own:
        name = f"S{subject:03d}-{number:03d}.xml"
        (folder / name).write_text(f"{XML}<MmiMetaData>\n{tag}</MmiMetaData>\n")
    return folder


def clip(folder: Path, subject: int, emotion: str = "happiness") -> Path:
    """A clip of a face that goes from rest to the emotion."""
    return write_avi(folder / f"S{subject:03d}-{int(folder.name):03d}.avi", posed(emotion, subject))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people, one clip each: happiness, surprise, anger, sadness; the last label in the clip's own file."""
    root = tmp_path_factory.mktemp("mmi")
    for number, (code, emotion) in enumerate([(4, "happiness"), (6, "surprise"), (1, "anger"), (5, "sadness")], 1):
        clip(session(root, number, number, code, own=number == 4), number, emotion)
    return root


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """One good session of person 1."""
    clip(session(tmp_path, 1, 1, 4), 1)
    return tmp_path


def everything(name: str, root: Path) -> dict[str, str]:
    """id -> emotion over the three splits; every id once."""
    found: dict[str, str] = {}
    for split in SPLITS:
        faces = load_dataset(name, split, root)
        told = {sample: SIX[label] for sample, label in zip(faces.ids, faces.labels, strict=True)}
        assert not found.keys() & told.keys()
        found |= told
    return found


def load_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> mmi.FaceSet:
    """Every session as one split."""
    monkeypatch.setattr(splits, "by_subject", lambda subjects, split: np.ones(len(subjects), bool))
    return load_dataset("mmi", "test", root)


def test_frames_carry_the_label_of_their_session(root: Path) -> None:
    """Each clip's four frames have the emotion of its XML, wherever it stands; faces are uint8 (N, 96, 96, 3)."""
    found = everything("mmi", root)
    assert {name.split("/")[0]: emotion for name, emotion in found.items()} == {
        "1": "happiness", "2": "surprise", "3": "anger", "4": "sadness",
    }  # fmt: skip
    faces = load_dataset("mmi", "train", root)
    assert (faces.images.dtype, faces.images.shape[1:], faces.emotions) == (np.uint8, (96, 96, 3), SIX)
    assert faces.skipped == faces.notes == ()
    first = [name for name in found if name.startswith("1/")]
    assert first[0] == "1/S001-001/00000"
    assert 2 <= len(first) <= 4


def test_nobody_stands_on_two_sides(root: Path) -> None:
    """By subject, the clips of a person are in one split; every split has somebody."""
    people = [{name.split("/")[1][:4] for name in load_dataset("mmi", split, root).ids} for split in SPLITS]
    assert sorted(person for group in people for person in group) == ["S001", "S002", "S003", "S004"]
    assert all(people)


def test_random_frames_put_one_clip_on_several_sides(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second protocol gives the same frames with the same labels, otherwise divided: clips are shared by splits."""
    monkeypatch.setattr(clips, "detect_faces", lambda image: [Face((60, 30, 140, 130), 0.9)])  # finding is slow
    assert everything("mmi-random", root) == everything("mmi", root)
    first, last = (
        {name.rsplit("/", 1)[0] for name in load_dataset("mmi-random", s, root).ids} for s in ("train", "test")
    )
    assert first & last
    assert DATASETS["mmi-random"].card.emotions == DATASETS["mmi"].card.emotions


def test_the_subject_of_a_clip_without_one_in_its_name(tmp_path: Path) -> None:
    """Where the clip's name has no S001-, the session's XML says whom it shows."""
    folder = session(tmp_path, 7, 42, 4)
    (folder / "film.avi").touch()
    (found,), skipped, _ = mmi.read_sessions(tmp_path / "Sessions")
    assert (found.subject, found.emotion, found.name, skipped) == ("S042", "happiness", "7/film", [])


def test_a_person_has_one_name_however_it_is_written(tmp_path: Path) -> None:
    """S031 in a clip's name and 31, 031 or s031 in the XML are one person, so that nobody stands on two sides."""
    (session(tmp_path, 1, 31, 4) / "S031-001.avi").touch()
    (session(tmp_path, 2, 31, 4) / "film.avi").touch()
    for number, written in ((3, "031"), (4, "s031")):
        folder = session(tmp_path, number, 31, 4)
        (folder / "session.xml").write_text((folder / "session.xml").read_text().replace('id="31"', f'id="{written}"'))
        (folder / "film.avi").touch()
    (session(tmp_path, 5, 310, 4) / "S310-005.avi").touch()
    assert [one.subject for one in mmi.read_sessions(tmp_path / "Sessions")[0]] == [*["S031"] * 4, "S310"]


def test_sessions_that_name_nobody_are_counted(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By subject, each is a person of its own, who may be on both sides; a note says how many there are."""
    for number in (2, 3):
        folder = session(one, number, number, 4)
        told = folder / "session.xml"
        told.write_text(told.read_text().replace(f'<subject id="{number}"/>', ""))
        for name in ("a.avi", "b.avi"):
            write_avi(folder / name, posed("happiness", number))
    note = "2 session(s) name no subject; each counts as a person of its own, who may also be in another split"
    assert load_dataset("mmi-random", "test", one).notes == ()
    assert load_all(one, monkeypatch).notes == (note,)


def test_a_clip_in_two_formats_is_one(tmp_path: Path) -> None:
    """Of S001-001.avi and S001-001.mpg the first is read: their frames would have the same names."""
    folder = session(tmp_path, 1, 1, 4)
    for name in ("S001-001.mpg", "S001-001.avi", "S001-002.avi"):
        (folder / name).touch()
    assert [one.clip.name for one in mmi.read_sessions(tmp_path / "Sessions")[0]] == ["S001-001.avi", "S001-002.avi"]


def test_a_face_on_its_side_is_turned_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip filmed a quarter turn to the left gives upright faces: nearly those of the upright clip."""
    frames = posed("happiness", 1)
    for number, turned in ((1, frames), (2, [np.rot90(frame) for frame in frames])):
        write_avi(session(tmp_path, number, number, 4) / f"S{number:03d}-{number:03d}.avi", turned)
    faces = load_all(tmp_path, monkeypatch)
    first, second = (next(i for i, name in enumerate(faces.ids) if name.startswith(start)) for start in ("1/", "2/"))
    difference = faces.images[first].astype(int) - faces.images[second].astype(int)
    assert np.abs(difference).mean() < 8


def test_what_is_left_out_is_said(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions with action units alone, with other states and from the side are no pictures, and are counted."""
    clip(session(one, 2, 2, None), 2)
    clip(session(one, 3, 3, 8), 3)
    clip(session(one, 4, 4, 4, view="1"), 4)
    faces = load_all(one, monkeypatch)
    assert {name.split("/")[0] for name in faces.ids} == {"1"}
    assert faces.notes == (
        "left out: 1 session(s) seen from the side",
        "left out: 1 session(s) with another state",
        "left out: 1 session(s) without an emotion",
    )


def test_broken_sessions_are_reported_and_the_rest_is_read(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing and broken XML, an absent, empty, corrupt and sound-only clip and one without a face are named lines."""
    (session(one, 2, 2, 4) / "session.xml").unlink()
    (session(one, 3, 3, 4) / "session.xml").write_text("<session>")
    session(one, 4, 4, 4)
    (session(one, 5, 5, 4) / "S005-005.avi").touch()
    (session(one, 6, 6, 4) / "S006-006.avi").write_bytes(b"RIFF" + bytes(5000))
    write_sound(session(one, 7, 7, 4) / "S007-007.avi")
    write_avi(session(one, 8, 8, 4) / "S008-008.avi", [np.full((96, 96, 3), 90, np.uint8)] * 3)
    faces = load_all(one, monkeypatch)
    assert {name.split("/")[0] for name in faces.ids} == {"1"}
    base = one / "Sessions"
    starts = [
        f"{base / '2' / 'session.xml'}: there is no such file",
        f"{base / '3'}: its XML cannot be read (session.xml: ",
        f"{base / '4'}: there is no clip (.avi)",
        f"{base / '5' / 'S005-005.avi'}: ",
        f"{base / '6' / 'S006-006.avi'}: ",
        f"{base / '7' / 'S007-007.avi'}: there are no moving pictures",
        f"{base / '8' / 'S008-008.avi'}: no face was found in 1 of 1 frames",
    ]
    assert len(faces.skipped) == len(starts)
    for line, start in zip(faces.skipped, starts, strict=True):
        assert line.startswith(start)


def test_windows_files_and_other_cases(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte-order mark, Windows line ends, SESSION.XML and S001-001.AVI change nothing."""
    before = load_all(one, monkeypatch)
    folder = one / "Sessions" / "1"
    text = (folder / "session.xml").read_bytes().replace(b"\n", b"\r\n")
    (folder / "session.xml").unlink()
    (folder / "SESSION.XML").write_bytes(b"\xef\xbb\xbf" + text)
    (folder / "S001-001.avi").rename(folder / "S001-001.AVI")
    assert load_all(one, monkeypatch).content_hash() == before.content_hash()


@pytest.mark.parametrize("label", ["happily", "-1", "4.5", "0"])
def test_an_unknown_label_names_the_file(one: Path, label: str) -> None:
    """A value that is no number from 1 and no emotion's name is refused with file and line."""
    told = session(one, 2, 2, label) / "session.xml"
    with pytest.raises(DataError) as caught:
        load_dataset("mmi", "train", one)
    start = f"{told}, line 5: the emotion must be a number from 1 (1 to 6 are anger, disgust"
    assert str(caught.value).startswith(start)
    assert repr(label) in str(caught.value)


def test_missing_data_says_where_it_must_lie_and_whom_to_ask(tmp_path: Path) -> None:
    """Without a Sessions folder the text names folder, layout, address and licence."""
    for root in (tmp_path, None):
        with pytest.raises(DataError, match=r"Sessions/\*/\*\.avi.*https://mmifacedb\.eu.*agree") as caught:
            load_dataset("mmi-random", "train", root)
        assert str(root or "$FER_BENCH_DATA/mmi:") in str(caught.value)


def test_a_copy_without_labels_is_refused(tmp_path: Path) -> None:
    """A Sessions folder in which no session has an emotion is no data set."""
    clip(session(tmp_path, 1, 1, None), 1)
    with pytest.raises(DataError, match="no session has a clip and an emotion"):
        load_dataset("mmi", "train", tmp_path)


@pytest.mark.parametrize("name", ["mmi", "mmi-random"])
def test_the_test_split_can_be_forbidden(root: Path, name: str) -> None:
    """Training cannot read the test split."""
    with forbid_split("test"), pytest.raises(RuntimeError, match="training never sees it"):
        load_dataset(name, "test", root)
