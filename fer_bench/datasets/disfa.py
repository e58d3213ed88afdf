"""DISFA (Mavadati et al., 2013): spontaneous faces of 27 people, each frame labelled with action units, not emotions.

    Videos_LeftCamera/LeftVideoSN001_comp.avi   ActionUnit_Labels/SN001/SN001_au1.txt ... SN001_au26.txt

Each of the twelve label files has one line "frame,intensity" per frame, frames from 1, intensities 0 (absent) to 5.

From action units to emotions. A unit counts as present from intensity 2 on. The prototypes are EMFACS's (Ekman &
Friesen, 1983, and the FACS Investigator's Guide, 2002), less the units that DISFA does not label (7, 10, 11, 16, 22,
23, 24, 27):

    happiness 6+12 · sadness 1+4+15 or 6+15 · surprise 1+2+5 or 1+2+26 · fear 1+2+4+5 or 5+20 · disgust 9 · anger 4+5

A frame matches a prototype whose units are all present, unless it also matches one that contains it (1+2+4+5 is fear,
though 4+5 and 1+2+5 are in it). It has the emotion where all its matches agree. A frame with no match is neutral where
every intensity is 0. All others are left out: matches that disagree, traces, units that mean no emotion. Contempt (14)
is not labelled. Anger is the weakest of these labels, as the units that tell it best (7, 23, 24) are missing.

Neighbouring frames hardly differ: of each clip at most 20 frames per emotion are taken, evenly spread over those that
have it. The largest face of each is kept at 96 x 96. There is no official split: by subject (`splits.by_subject`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fer_bench.cards import DatasetCard
from fer_bench.datasets import clips, lists, splits
from fer_bench.datasets.base import DATASETS, Dataset, FaceSet, check_allowed
from fer_bench.emotions import SEVEN
from fer_bench.errors import DataError
from fer_bench.faces import stack
from fer_bench.video import UnreadableClipError

UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
"""The action units that DISFA labels."""
PRESENT = 2
"""Least intensity, of 0..5, at which a unit counts as present."""
PROTOTYPES: Mapping[str, tuple[frozenset[int], ...]] = {
    "anger": (frozenset((4, 5)),),
    "disgust": (frozenset((9,)),),
    "fear": (frozenset((1, 2, 4, 5)), frozenset((5, 20))),
    "happiness": (frozenset((6, 12)),),
    "sadness": (frozenset((1, 4, 15)), frozenset((6, 15))),
    "surprise": (frozenset((1, 2, 5)), frozenset((1, 2, 26))),
}
PEOPLE = 27
PER_EMOTION = 20
"""Frames of each clip and emotion, at most."""
LAYOUT = "Videos_LeftCamera/LeftVideoSN001_comp.avi and ActionUnit_Labels/SN001/SN001_au1.txt"

CARD = DatasetCard(
    name="disfa",
    title="DISFA",
    emotions=SEVEN,
    counts=(),
    licence="non-commercial research only, under a signed agreement",
    source="by the agreement form at http://mohammadmahoor.com/disfa/",
    paper="Mavadati et al., DISFA: A Spontaneous Facial Action Intensity Database, IEEE TAC 2013",
)


def emotion_of(intensities: Mapping[int, int]) -> str | None:
    """The emotion of a frame by the rule above, None where it has none. intensities: action unit -> 0..5."""
    present = {unit for unit, intensity in intensities.items() if intensity >= PRESENT}
    matches = [(units, name) for name, sets in PROTOTYPES.items() for units in sets if units <= present]
    names = {name for units, name in matches if not any(units < other for other, _ in matches)}
    if not names and not any(intensities.values()):
        return "neutral"
    return names.pop() if len(names) == 1 else None


def load_disfa(root: Path | None, split: str) -> FaceSet:
    """One split by subject: uint8 (N, 96, 96, 3), seven emotions.

    Raises DataError, naming file and line and mend, where data, a label file or one of the 27 people is missing or a
    label is out of range.
    Clips that are absent or cannot be read, and frames that are not there or show no face, are named in `skipped`.
    """
    check_allowed(split)
    films = lists.inside(root, "Videos_LeftCamera", "Video_LeftCamera")
    labels = lists.inside(root, "ActionUnit_Labels")
    people = [one for one in lists.folders_in(labels) if re.fullmatch(r"SN\d{3}", one.name.upper())] if labels else []
    if films is None or not people:
        raise lists.not_here(CARD, root, LAYOUT)
    notes = lists.check_listed(CARD, labels, "people with labels", len(people), PEOPLE)
    mask = splits.by_subject([one.name.upper() for one in people], split)
    images, numbers, ids, skipped = [], [], [], []
    for person, inside in zip(people, mask, strict=True):
        if not inside:
            continue
        subject = person.name.upper()
        chosen = choose(read_labels(person))  # frame number from 1 -> emotion
        film = next((file for file in clips.clips_in(films) if subject in file.name.upper()), None)
        if film is None:
            skipped.append(f"{films / f'LeftVideo{subject}_comp.avi'}: there is no such file")
            continue
        there = faceless = 0
        try:
            for frame in clips.frames_at(film, (number - 1 for number in chosen), skipped.append):
                there += 1
                image = clips.largest_face(frame.image)
                if image is None:
                    faceless += 1
                    continue
                images.append(image)
                numbers.append(SEVEN.index(chosen[frame.index + 1]))
                ids.append(f"{subject}/{frame.index + 1:05d}")
        except UnreadableClipError as error:
            skipped.append(str(error))
            continue
        if there < len(chosen):
            skipped.append(f"{film}: {len(chosen) - there} of {len(chosen)} labelled frames are not in the clip")
        if faceless:
            skipped.append(f"{film}: no face was found in {faceless} of {there} frames")
    for line in skipped:
        print(f"skipped {line}", file=sys.stderr)
    if not images:
        why = f"; the first that failed: {skipped[0].rstrip('.')}" if skipped else ""
        raise DataError(f"{films}: the {split} split has no readable frame with an emotion{why}; get DISFA again.")
    notes += ("emotions are derived from action units, as fer_bench.datasets.disfa says",)
    faces = stack(images, clips.SIDE)
    return FaceSet(
        "disfa", split, SEVEN, faces, np.array(numbers, np.int64), tuple(ids), tuple(skipped), notes,
        subjects=np.array([name.partition("/")[0] for name in ids]),
    )  # fmt: skip


def read_labels(person: Path) -> dict[int, dict[int, int]]:
    """frame -> unit -> intensity, of the frames that all twelve files of a person's folder list.

    Raises DataError, naming file and line, for a missing file and a line that is not "frame,intensity" in range.
    """
    by_unit: dict[int, dict[int, int]] = {}
    for unit in UNITS:
        name = f"{person.name}_au{unit}.txt"
        path = lists.inside(person, name)
        if path is None:
            raise DataError(f"{person / name}: there is no such file; get the labels of DISFA again.")
        by_unit[unit] = {}
        for line, text in lists.read_lines(path):
            match = re.fullmatch(r"(\d+)\s*,\s*([0-5])", text)
            if match is None or int(match[1]) < 1:
                raise DataError(
                    f"{path}, line {line}: it must read frame,intensity, the frame from 1 and the intensity 0 to 5, "
                    f"not {text[:20]!r}; get it again."
                )
            by_unit[unit][int(match[1])] = int(match[2])
    shared = set.intersection(*(set(frames) for frames in by_unit.values()))
    return {frame: {unit: by_unit[unit][frame] for unit in UNITS} for frame in sorted(shared)}


def choose(labels: Mapping[int, Mapping[int, int]]) -> dict[int, str]:
    """frame -> emotion, at most PER_EMOTION frames of each, evenly spread over those that have it; in order."""
    having: dict[str, list[int]] = {}
    for frame, intensities in labels.items():
        emotion = emotion_of(intensities)
        if emotion is not None:
            having.setdefault(emotion, []).append(frame)
    chosen: dict[int, str] = {}
    for emotion, frames in having.items():
        places = np.linspace(0, len(frames) - 1, min(PER_EMOTION, len(frames))).round().astype(int)
        chosen |= {frames[place]: emotion for place in places}
    return dict(sorted(chosen.items()))


DATASETS.add("disfa", Dataset(CARD, load_disfa))
