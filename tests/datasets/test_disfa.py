"""DISFA: action units to emotions by a stated rule, labels beside clips, in good order and in bad."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from fer_bench.datasets import disfa, load_dataset, splits
from fer_bench.datasets.base import FaceSet, forbid_split
from fer_bench.datasets.disfa import PER_EMOTION, UNITS, choose, emotion_of
from fer_bench.emotions import SEVEN
from fer_bench.errors import DataError
from tests.datasets.films import face, write_avi, write_sound

SMILE, REST, TRACE, FEAR = {6: 3, 12: 4, 25: 2}, {}, {12: 1}, {1: 2, 2: 3, 4: 2, 5: 4, 20: 2}


def labels(root: Path, subject: str, frames: Sequence[Mapping[int, int]], end: str = "\n", start: bytes = b"") -> Path:
    """The twelve label files of a person, one line per frame, from 1."""
    folder = root / "ActionUnit_Labels" / subject
    folder.mkdir(parents=True, exist_ok=True)
    for unit in UNITS:
        lines = [f"{number},{units.get(unit, 0)}" for number, units in enumerate(frames, 1)]
        (folder / f"{subject}_au{unit}.txt").write_bytes(start + (end.join(lines) + end).encode())
    return folder


def film(root: Path, subject: str, seed: int, count: int = 4) -> Path:
    """A clip with `count` frames, from rest to a smile."""
    frames = [face("happiness", place / max(1, count - 1), seed) for place in range(count)]
    return write_avi(root / "Videos_LeftCamera" / f"LeftVideo{subject}_comp.avi", frames)


@pytest.fixture(autouse=True)
def a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies here have a few of the 27 people, which is to be asked for."""
    monkeypatch.setenv("FER_BENCH_PARTIAL", "1")


def test_a_part_of_the_people_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the other sets: whole it is not; where a part is asked for, a note says how many are there."""
    monkeypatch.delenv("FER_BENCH_PARTIAL")
    with pytest.raises(DataError, match=r"3 of the 27 official people with labels; .* or set FER_BENCH_PARTIAL=1 to"):
        load_dataset("disfa", "test", root)
    monkeypatch.setenv("FER_BENCH_PARTIAL", "1")
    notes = load_dataset("disfa", "train", root).notes
    assert notes[0] == "3 of the 27 official people with labels; this copy lacks 24"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people: at rest, with a trace of a smile, smiling, afraid."""
    root = tmp_path_factory.mktemp("disfa")
    for seed, subject in enumerate(("SN001", "SN002", "SN003")):
        labels(root, subject, [REST, TRACE, SMILE, FEAR])
        film(root, subject, seed)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "disfa"))


def load_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> FaceSet:
    """Everybody as one split."""
    monkeypatch.setattr(splits, "by_subject", lambda subjects, split: np.ones(len(subjects), bool))
    return load_dataset("disfa", "test", root)


@pytest.mark.parametrize(
    ("units", "emotion"),
    [
        ({}, "neutral"),
        ({12: 1}, None),  # a trace is neither neutral nor an emotion
        ({6: 2, 12: 2}, "happiness"),
        ({6: 1, 12: 5}, None),  # below 2, a unit does not count
        ({6: 3, 12: 3, 25: 4, 26: 2}, "happiness"),
        ({1: 2, 4: 2, 15: 2}, "sadness"),
        ({6: 2, 15: 3}, "sadness"),
        ({1: 2, 2: 2, 5: 2, 25: 3, 26: 3}, "surprise"),
        ({1: 2, 2: 2, 26: 2}, "surprise"),
        ({1: 2, 2: 2}, None),
        ({1: 2, 2: 2, 4: 2, 5: 2}, "fear"),  # anger and surprise are within it
        ({5: 2, 20: 2}, "fear"),
        ({9: 2}, "disgust"),
        ({9: 2, 17: 3, 4: 1}, "disgust"),
        ({4: 3, 5: 2}, "anger"),
        ({4: 3}, None),
        ({6: 3, 12: 3, 9: 2}, None),  # a smile and disgust disagree
        ({6: 2, 12: 2, 15: 2}, None),
        ({1: 2, 2: 2, 4: 2, 15: 2, 26: 2}, None),
        ({17: 5}, None),
    ],
)
def test_the_rule_from_action_units_to_emotions(units: dict[int, int], emotion: str | None) -> None:
    """Whole prototypes from intensity 2 on, the containing one wins, all zero is neutral, disagreement is left out."""
    assert emotion_of(dict.fromkeys(UNITS, 0) | units) == emotion


def test_prototypes_use_what_disfa_labels() -> None:
    """Every prototype is made of DISFA's units and stands in the module's text, for every emotion but neutral."""
    for sets in disfa.PROTOTYPES.values():
        for units in sets:
            assert units <= set(UNITS)
            assert "+".join(map(str, sorted(units))) in (disfa.__doc__ or "")
    assert set(disfa.PROTOTYPES) == set(SEVEN) - {"neutral"}


def test_frames_are_spread_over_those_with_the_emotion() -> None:
    """Of 100 smiling frames twenty are taken, the first and the last among them; of three fearful ones all."""
    frames = {number: SMILE if number <= 100 else FEAR if number <= 103 else TRACE for number in range(1, 201)}
    chosen = choose({number: dict.fromkeys(UNITS, 0) | units for number, units in frames.items()})
    smiling = [number for number, emotion in chosen.items() if emotion == "happiness"]
    assert (len(smiling), smiling[0], smiling[-1]) == (PER_EMOTION, 1, 100)
    assert max(np.diff(smiling)) <= 6
    assert [number for number, emotion in chosen.items() if emotion == "fear"] == [101, 102, 103]
    assert len(chosen) == PER_EMOTION + 3


def test_frames_and_labels_belong_together(made: Path) -> None:
    """Each split is one of the three people; frame 1 of the labels is the clip's first, and traces are left out."""
    people = []
    for split in ("train", "validation", "test"):
        faces = load_dataset("disfa", split, made)
        subject = faces.ids[0][:5]
        people.append(subject)
        assert {name: SEVEN[label] for name, label in zip(faces.ids, faces.labels, strict=True)} == {
            f"{subject}/00001": "neutral", f"{subject}/00003": "happiness", f"{subject}/00004": "fear",
        }  # fmt: skip
        assert (faces.images.dtype, faces.images.shape, faces.emotions) == (np.uint8, (3, 96, 96, 3), SEVEN)
        assert faces.skipped == ()
    assert sorted(people) == ["SN001", "SN002", "SN003"]


def test_the_picture_is_the_frame_that_was_labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clip that brightens frame by frame, the kept face has the brightness of its own frame."""
    frames = [(face("neutral", 0, 5) * factor).astype(np.uint8) for factor in (0.5, 0.7, 1.0)]
    write_avi(tmp_path / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi", frames)
    labels(tmp_path, "SN001", [TRACE, SMILE, TRACE])
    faces = load_all(tmp_path, monkeypatch)
    assert faces.ids == ("SN001/00002",)
    means = [frame[16:144, 36:164].mean() for frame in frames]
    assert np.abs(np.array(means) - faces.images.mean()).argmin() == 1


def test_windows_label_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte-order mark, Windows line ends and blanks change nothing."""
    before = load_all(root, monkeypatch)
    labels(root, "SN002", [REST, TRACE, SMILE, FEAR], end=" \r\n", start=b"\xef\xbb\xbf")
    assert load_all(root, monkeypatch).content_hash() == before.content_hash()


def test_names_in_another_case(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders, label files and clips in another case are found all the same."""
    before = load_all(root, monkeypatch)
    for person in list((root / "ActionUnit_Labels").iterdir()):
        for path in list(person.iterdir()):
            path.rename(path.with_name(path.name.replace("_au", "_AU").replace(".txt", ".TXT")))
        person.rename(person.with_name(person.name.lower()))
    for path in list((root / "Videos_LeftCamera").iterdir()):
        path.rename(path.with_name(path.name.upper()))
    (root / "ActionUnit_Labels").rename(root / "actionunit_labels")
    (root / "Videos_LeftCamera").rename(root / "videos_leftcamera")
    again = load_all(root, monkeypatch)
    assert (again.ids, again.content_hash()) == (before.ids, before.content_hash())


def test_labels_shorter_than_the_clip(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that one of the twelve files does not list have no label, and the rest is read."""
    path = root / "ActionUnit_Labels" / "SN001" / "SN001_au25.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    faces = load_all(root, monkeypatch)
    assert [name for name in faces.ids if name.startswith("SN001")] == ["SN001/00001", "SN001/00003"]
    assert faces.skipped == ()


def test_labels_longer_than_the_clip(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labelled frames that the clip does not have are counted in one line."""
    labels(root, "SN001", [REST, TRACE, SMILE, FEAR, FEAR, FEAR])
    faces = load_all(root, monkeypatch)
    clip = root / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi"
    assert faces.skipped == (f"{clip}: 2 of 5 labelled frames are not in the clip",)


def test_no_frame_behind_damage_gets_the_label_of_another(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bytes are lost in a clip, what was read before has its own label, and the rest counts as not there."""
    shades = [np.full((96, 96, 3), 30 + place, np.uint8) for place in range(200)]  # each frame tells its number
    clip = write_avi(root / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi", shades)
    content = bytearray(clip.read_bytes())
    middle = slice(len(content) * 4 // 10, len(content) // 2)
    content[middle] = bytes(middle.stop - middle.start)
    clip.write_bytes(content)
    labels(root, "SN001", [SMILE] * 60 + [FEAR] * 140)
    monkeypatch.setattr(disfa.clips, "largest_face", lambda image: image)
    monkeypatch.setattr(disfa.splits, "by_subject", lambda subjects, split: np.array(subjects) == "SN001")
    faces = load_dataset("disfa", "test", root)
    numbers = [int(name[-5:]) for name in faces.ids]
    assert 3 < len(numbers) < 2 * PER_EMOTION
    assert np.abs(faces.images.mean((1, 2, 3)) - 29 - numbers).max() < 8  # some thirty are lost
    damage, lost = faces.skipped
    assert damage.startswith(f"{clip}: part of this clip is broken or cut off; its frames up to ")
    assert lost == f"{clip}: {2 * PER_EMOTION - len(numbers)} of {2 * PER_EMOTION} labelled frames are not in the clip"


def test_broken_clips_are_reported_and_the_rest_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absent clip, one with sound only, one without a face and an empty one are a line each, never a crash."""
    films = root / "Videos_LeftCamera"
    (films / "LeftVideoSN001_comp.avi").unlink()
    write_sound(films / "LeftVideoSN002_comp.avi")
    for subject in ("SN004", "SN005"):
        labels(root, subject, [REST])
    write_avi(films / "LeftVideoSN004_comp.avi", [np.full((96, 96, 3), 90, np.uint8)])
    (films / "LeftVideoSN005_comp.avi").touch()
    faces = load_all(root, monkeypatch)
    assert {name[:5] for name in faces.ids} == {"SN003"}
    starts = ["1_comp.avi: there is no such file", "2_comp.avi: there are no moving pictures"]
    starts += ["4_comp.avi: no face was found in 1 of 1 frames", "5_comp.avi: "]
    assert len(faces.skipped) == 4
    for line, start in zip(faces.skipped, starts, strict=True):
        assert line.startswith(f"{films / 'LeftVideoSN00'}{start}")


@pytest.mark.parametrize(
    ("line", "text"), [(2, "2,6"), (3, "3;1"), (1, "0,1"), (4, "4"), (2, "x,1"), (2, "2,-1"), (2, "2,1.5")]
)
def test_a_bad_label_names_file_and_line(root: Path, monkeypatch: pytest.MonkeyPatch, line: int, text: str) -> None:
    """An intensity out of 0..5, a frame below 1 or another form is refused with file and line."""
    path = root / "ActionUnit_Labels" / "SN003" / "SN003_au6.txt"
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        load_all(root, monkeypatch)
    assert str(caught.value).startswith(f"{path}, line {line}: it must read frame,intensity")


def test_a_missing_label_file_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All twelve units are needed; the one that is missing is named."""
    path = root / "ActionUnit_Labels" / "SN002" / "SN002_au17.txt"
    path.unlink()
    with pytest.raises(DataError, match="SN002_au17.txt: there is no such file"):
        load_all(root, monkeypatch)


@pytest.mark.parametrize("missing", ["Videos_LeftCamera", "ActionUnit_Labels"])
def test_missing_data_says_where_it_must_lie_and_whom_to_ask(root: Path, missing: str) -> None:
    """Without the clips or the labels the text names folder, layout, address and licence."""
    shutil.rmtree(root / missing)
    with pytest.raises(DataError, match=r"LeftVideoSN001_comp\.avi.*mohammadmahoor\.com/disfa.*agree") as caught:
        load_dataset("disfa", "train", root)
    assert str(root) in str(caught.value)


def test_the_test_split_can_be_forbidden(made: Path) -> None:
    """Training cannot read the test split."""
    with forbid_split("test"), pytest.raises(RuntimeError, match="training never sees it"):
        load_dataset("disfa", "test", made)
