"""MMI (Pantic et al., 2005; Valstar & Pantic, 2010): posed clips that go from neutral to an emotion and back.

    Sessions/1767/S031-001.avi   Sessions/1767/S031-001.xml   Sessions/1767/session.xml

A session's label stands in its XML, as `<Metatag Name="Emotion" Value="4"/>` in session.xml or in the clip's own file:
1 anger, 2 disgust, 3 fear, 4 happiness, 5 sadness, 6 surprise. Sessions without one (most are labelled with action
units alone) and with other states (7 and more: scream, bored, sleepy) are left out, and so are side views
(`<track view="1">`); the notes say how many.

As in P0 (METHODS.md), at most 20 representative frames of each clip (`fer_bench.video.representative`) carry the
clip's label, those of its neutral beginning too; a still clip gives fewer. The largest face of each is kept at 96 x 96.

There is no official split. Two are offered:

- `mmi` goes by subject (`splits.by_subject`; S031 of S031-001.avi, else the session's `<subject id=...>`). A session
  that names none counts as a person of its own, who may then be on both sides; a note says how many do.
- `mmi-random` draws frames at random (`splits.random_frames`, seed 0), as P0 does: frames of one clip are then trained
  on and tested on. It is there to be compared with, not to be believed.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fer_bench.cards import DatasetCard
from fer_bench.datasets import clips, lists, splits
from fer_bench.datasets.base import DATASETS, Dataset, FaceSet, check_allowed
from fer_bench.emotions import SIX, canonical
from fer_bench.errors import DataError
from fer_bench.faces import stack
from fer_bench.video import UnreadableClipError, representative

LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
"""MMI's 1, 2, ... 6."""
PER_CLIP = 20
"""Representative frames of each clip (P0)."""
NAMELESS = "session "
"""How the subject of a session that names none begins; its number follows."""
LAYOUT = "Sessions/*/*.avi, each beside its session.xml"

CARD = DatasetCard(
    name="mmi",
    title="MMI",
    emotions=SIX,
    counts=(),
    licence="non-commercial research only, under a signed agreement",
    source="by the agreement form at https://mmifacedb.eu",
    paper="Pantic et al., Web-based Database for Facial Expression Analysis, ICME 2005",
)
RANDOM_CARD = replace(CARD, name="mmi-random", title="MMI (random frames, people on both sides)")


@dataclass(frozen=True)
class Session:
    """One clip with a label. name: "1767/S031-001"."""

    name: str
    clip: Path
    emotion: str
    subject: str


def load_mmi(root: Path | None, split: str) -> FaceSet:
    """One split by subject: uint8 (N, 96, 96, 3), six emotions.

    Raises DataError, naming folder or file and mend, where the data is missing, a label is no label or nothing can be
    read. Sessions and clips that cannot be read, and frames without a face, are named in `skipped`.
    """
    check_allowed(split)
    return _load(CARD, root, split, by_subject=True)


def load_mmi_random(root: Path | None, split: str) -> FaceSet:
    """One split of frames drawn at random; otherwise as `load_mmi`."""
    check_allowed(split)
    return _load(RANDOM_CARD, root, split, by_subject=False)


def _load(card: DatasetCard, root: Path | None, split: str, by_subject: bool) -> FaceSet:
    base = lists.inside(root, "Sessions")
    if base is None:
        raise lists.not_here(card, root, LAYOUT)
    sessions, skipped, left_out = read_sessions(base)
    if not sessions:
        raise DataError(f"{base}: no session has a clip and an emotion; it must hold {LAYOUT}; get it again.")
    # Which of its frames a clip gives to the split, in the order of time; known before anything is decoded.
    wanted: dict[str, set[int]] = {}
    if by_subject:
        mask = splits.by_subject([session.subject for session in sessions], split)
        wanted = {one.name: set(range(PER_CLIP)) for one, inside in zip(sessions, mask, strict=True) if inside}
    else:
        places = [(session.name, place) for session in sessions for place in range(PER_CLIP)]
        mask = splits.random_frames([f"{name}#{place:02d}" for name, place in places], split)
        for (name, place), inside in zip(places, mask, strict=True):
            if inside:
                wanted.setdefault(name, set()).add(place)
    images, labels, ids, people = [], [], [], []
    for session in sessions:
        if session.name not in wanted:
            continue
        try:
            chosen = representative(session.clip, PER_CLIP, on_damage=skipped.append)
        except UnreadableClipError as error:
            skipped.append(str(error))
            continue
        frames = [frame for place, frame in enumerate(chosen) if place in wanted[session.name]]
        found = clips.faces_in(frames)
        if len(found) < len(frames):
            skipped.append(f"{session.clip}: no face was found in {len(frames) - len(found)} of {len(frames)} frames")
        for frame, image in found:
            images.append(image)
            labels.append(SIX.index(session.emotion))
            ids.append(f"{session.name}/{frame.index:05d}")
            people.append(session.subject)
    for line in skipped:
        print(f"skipped {line}", file=sys.stderr)
    if not images:
        why = f"; the first that failed: {skipped[0].rstrip('.')}" if skipped else ""
        raise DataError(f"{base}: the {split} split has no readable clip with a face{why}; get MMI again.")
    notes = tuple(f"left out: {count:,} {what}" for what, count in sorted(left_out.items()))
    nameless = {session.subject for session in sessions if session.subject.startswith(NAMELESS)}
    if nameless and by_subject:
        notes += (
            f"{len(nameless):,} session(s) name no subject; each counts as a person of its own, who may also be in "
            "another split",
        )
    return FaceSet(
        card.name, split, SIX, stack(images, clips.SIDE), np.array(labels, np.int64), tuple(ids), tuple(skipped), notes,
        subjects=np.array(people),
    )  # fmt: skip


def read_sessions(base: Path) -> tuple[list[Session], list[str], Counter[str]]:
    """(the labelled clips by session number, a line per session that cannot be read, what was left out and how often).

    Raises DataError, naming file and line, for an emotion that is neither a number nor a name.
    """
    sessions: list[Session] = []
    skipped: list[str] = []
    left_out: Counter[str] = Counter()
    for folder in sorted(lists.folders_in(base), key=lambda one: (len(one.name), one.name)):
        films = clips.clips_in(folder)
        told = lists.inside(folder, "session.xml")
        if told is None:
            skipped.append(f"{folder / 'session.xml'}: there is no such file")
            continue
        try:
            session = _xml(told)
            own = [lists.inside(folder, f"{film.stem}.xml") for film in films]
            trees = [(path, _xml(path)) for path in own if path is not None]
        except ElementTree.ParseError as error:
            skipped.append(f"{folder}: its XML cannot be read ({error})")
            continue
        label = next((found for path, tree in [(told, session), *trees] if (found := _emotion(path, tree))), None)
        views = {_attribute(track, "view") for track in session.iter() if _tag(track) == "track"}
        if label not in LABELS:
            left_out["session(s) with another state" if label else "session(s) without an emotion"] += 1
        elif views == {"1"}:
            left_out["session(s) seen from the side"] += 1
        elif not films:
            skipped.append(f"{folder}: there is no clip (.avi) beside session.xml")
        films = list({film.stem: film for film in reversed(films)}.values())[::-1]  # a clip in two formats is one
        for film in films if label in LABELS and views != {"1"} else ():
            match = re.match(r"(S\d+)-", film.stem, re.IGNORECASE)
            named = (_attribute(one, "id") for one in session.iter() if _tag(one) == "subject")
            subject = _person(match[1] if match else next(filter(None, named), NAMELESS + folder.name))
            sessions.append(Session(f"{folder.name}/{film.stem}", film, label, subject))
    return sessions, skipped, left_out


def _person(name: str) -> str:
    """One name for a person: S031, S31, 31 and 031 are S031; what is no number stays as it is."""
    number = re.fullmatch(r"S?(\d+)", name, re.IGNORECASE)
    return f"S{int(number[1]):03d}" if number else name


def _xml(path: Path) -> ElementTree.Element:
    """The root. Raises ParseError, with file name, line and column, where it is no XML."""
    try:
        return ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise ElementTree.ParseError(f"{path.name}: {error}") from None


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


def _attribute(element: ElementTree.Element, name: str) -> str:
    """The attribute's value in whatever case its name is written; "" without it."""
    return next((value.strip() for key, value in element.attrib.items() if key.lower() == name), "")


def _emotion(path: Path, tree: ElementTree.Element) -> str | None:
    """The emotion's name, "other" for MMI's other states, None where the file does not say."""
    for element in tree.iter():
        if _tag(element) != "metatag" or _attribute(element, "name").lower() != "emotion":
            continue
        text = _attribute(element, "value") or (element.text or "").strip()
        if not text:
            return None
        if text.isdecimal() and int(text) > 0:
            return LABELS[int(text) - 1] if int(text) <= len(LABELS) else "other"
        try:
            return canonical(text)
        except ValueError:
            raise DataError(
                f"{path}, line {_line(path, text)}: the emotion must be a number from 1 (1 to 6 are "
                f"{', '.join(LABELS)}), not {text[:20]!r}; get this session again."
            ) from None
    return None


def _line(path: Path, value: str) -> int:
    """The line, from 1, on which the emotion's value stands (ElementTree does not say)."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return next((n for n, line in enumerate(lines, 1) if "emotion" in line.lower() and value in line), 1)


DATASETS.add("mmi", Dataset(CARD, load_mmi))
DATASETS.add("mmi-random", Dataset(RANDOM_CARD, load_mmi_random))
