"""CK+ (Lucey et al., 2010), posed sequences from neutral to apex, from the official tree or the CK+48 folders.

    cohn-kanade-images/S005/001/S005_001_00000001.png ...   Emotion/S005/001/S005_001_00000011_emotion.txt
    CK+48/anger/S010_004_00000017.png ...

In the official tree 327 of 593 sequences have a label. Of each of them the first frame is neutral and the last three
are the emotion (contempt is a class of its own): 1,308 pictures, eight emotions. The largest face of each is cut out
(`fer_bench.faces`) and kept at 96 x 96, grey, since only some sessions were filmed in colour. CK+48 holds the last
three frames alone, cropped to 48 x 48: 981 pictures, no neutral. The two copies are different test sets.

There is no official split, and the same person stands in many sequences. Two are offered:

- `ckplus` goes by subject (`splits.by_subject` over the subjects that have a label, S005, S010, ...): nobody stands on
  two sides. CK+48's names carry the subject as well, so both copies divide the people alike.
- `ckplus-random` draws frames at random (`splits.random_frames`, seed 0), as P0 does with MMI: all but identical
  frames of one sequence are then trained on and tested on. It is there to be compared with, not to be believed.
"""

from __future__ import annotations

import functools
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_bench.cards import DatasetCard
from fer_bench.datasets import lists, splits
from fer_bench.datasets.base import DATASETS, Dataset, FaceSet, check_allowed
from fer_bench.datasets.own import is_emotion
from fer_bench.emotions import EIGHT, canonical
from fer_bench.errors import DataError

LABELS = ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
"""CK+'s 0, 1, ... 7."""
POSED = tuple(emotion for emotion in EIGHT if emotion != "neutral")
SEQUENCES = 327
"""With a label."""
LAST = 3
"""Frames at a sequence's end that show the emotion."""
SIDE, SIDE_48 = 96, 48
_FRAME = re.compile(r"(S\d{3})_(\d{3})_\d+$", re.IGNORECASE)
LAYOUT = "cohn-kanade-images/S005/001/*.png and Emotion/S005/001/*_emotion.txt, or CK+48/<emotion>/*.png"

CARD = DatasetCard(
    name="ckplus",
    title="CK+",
    emotions=EIGHT,
    counts=(),
    licence="non-commercial research only, under a signed agreement",
    source="by the agreement form at http://www.jeffcohn.net/Resources/",
    paper="Lucey et al., The Extended Cohn-Kanade Dataset (CK+), CVPR Workshops 2010",
)
RANDOM_CARD = replace(CARD, name="ckplus-random", title="CK+ (random frames, people on both sides)")


def load_ckplus(root: Path | None, split: str) -> FaceSet:
    """One split by subject: uint8 (N, 96, 96), eight emotions; of CK+48 (N, 48, 48), those but neutral.

    Raises DataError where it is missing and where a label is wrong. Sequences without frames and pictures that cannot
    be read are named in `skipped`; the notes say in how many pictures no face was found.
    """
    check_allowed(split)
    return _load(CARD, root, split, by_subject=True)


def load_ckplus_random(root: Path | None, split: str) -> FaceSet:
    """One split of frames drawn at random; otherwise as `load_ckplus`."""
    check_allowed(split)
    return _load(RANDOM_CARD, root, split, by_subject=False)


def _load(card: DatasetCard, root: Path | None, split: str, by_subject: bool) -> FaceSet:
    frames = lists.inside(root, "cohn-kanade-images", "extended-cohn-kanade-images/cohn-kanade-images")
    labels = lists.inside(root, "Emotion", "Emotion_labels/Emotion")
    cropped = lists.inside(root, "CK+48/CK+48", "CK+48") or (
        root if root and root.is_dir() and _has_emotions(root) else None
    )
    absent: list[tuple[str, str]] = []
    if frames and labels:
        samples, people, absent, notes = _official(frames, labels)
        notes += lists.check_listed(
            CARD, frames, "labelled sequences with frames", len(people) - len(absent), SEQUENCES
        )
        emotions, side = EIGHT, SIDE
    elif cropped:
        samples, people, emotions, side = _ck48(cropped), [], POSED, SIDE_48
        notes = lists.check_listed(CARD, cropped, "pictures of CK+48", len(samples), SEQUENCES * LAST)
        notes += ("CK+48: the last three frames of each sequence, cropped to 48 x 48, without neutral",)
    else:
        raise lists.not_here(card, root, LAYOUT)
    if by_subject:
        # With everybody who has a label, so that frames that are missing move nobody to another side.
        mask = splits.by_subject([*(sample.subject for sample in samples), *people], split)
        its = {who for who, inside in zip(people, mask[len(samples) :], strict=True) if inside}
        mask = mask[: len(samples)]
    else:
        mask = splits.random_frames([sample.id for sample in samples], split)
        its = set(people)  # frames that are not there are in no split yet
    lacking = tuple(line for who, line in absent if who in its)
    for line in lacking:
        print(f"skipped {line}", file=sys.stderr)
    chosen = [sample for sample, wanted in zip(samples, mask, strict=True) if wanted]
    faceless: list[str] = []
    cut = functools.partial(lists.largest_face, faceless=faceless) if side == SIDE else lists.whole
    faces = lists.decode(card.name, split, chosen, emotions, side, "L", cut)
    person = {sample.id: sample.subject for sample in chosen}
    return replace(
        faces, skipped=(*lacking, *faces.skipped), notes=notes + lists.no_face(faceless, split),
        subjects=np.array([person[name] for name in faces.ids]),
    )  # fmt: skip


def _official(
    frames: Path, labels: Path
) -> tuple[list[lists.Sample], list[str], list[tuple[str, str]], tuple[str, ...]]:
    """(first and last frames, the subject of every labelled sequence, of each without frames the subject and a line
    on it, notes)."""
    samples: list[lists.Sample] = []
    people: list[str] = []
    absent: list[tuple[str, str]] = []
    find = lists.Names()
    for person in lists.folders_in(labels):
        for take in lists.folders_in(person):
            files = [f for f in sorted(take.iterdir()) if f.name.lower().endswith("_emotion.txt") and f.name[0] != "."]
            if not files:
                continue  # most sequences have no label, but a folder
            if len(files) > 1:
                raise DataError(f"{take}: {len(files)} labels for one sequence; there must be one, get it again.")
            emotion, listed = _label(files[0]), f"{files[0]}, line 1"
            people.append(person.name.upper())
            folder = find(frames / person.name)
            folder = folder and find(folder / take.name)
            pictures = lists.pictures_in(folder) if folder else []
            if len(pictures) <= LAST:
                where = frames / person.name / take.name
                needed = f"{len(pictures)} frame(s) where {LAST + 1} are needed"
                absent.append((people[-1], f"{where}: {needed} (listed in {listed})"))
                continue
            for picture, shown in [(pictures[0], "neutral"), *((last, emotion) for last in pictures[-LAST:])]:
                samples.append(lists.Sample(picture.stem.upper(), shown, picture, listed, people[-1]))
    notes = lists.check_listed(CARD, labels, "sequences with a label", len(people), SEQUENCES)
    return samples, people, absent, notes


def _label(path: Path) -> str:
    """The emotion in a file that reads "   3.0000000e+00"."""
    lines = lists.read_lines(path)
    try:
        number = float(lines[0][1]) if len(lines) == 1 else -1.0
    except ValueError:
        number = -1.0
    if number not in range(len(LABELS)):
        line, text = lines[0] if lines else (1, "")
        raise DataError(f"{path}, line {line}: it must hold one number from 0 to 7, not {text[:20]!r}; get it again.")
    return LABELS[int(number)]


def _has_emotions(root: Path) -> bool:
    """Whether folders of most of the posed emotions lie in this one, as in an unpacked CK+48 without a name above."""
    return sum(is_emotion(folder.name) for folder in lists.folders_in(root)) > len(POSED) // 2


def _ck48(root: Path) -> list[lists.Sample]:
    """The pictures of the emotion folders. DataError for a folder that is no emotion and a name without a subject."""
    samples: dict[str, lists.Sample] = {}
    for folder in lists.folders_in(root):
        if folder.name == "__MACOSX":  # what a Mac puts into a .zip beside the files
            continue
        try:
            emotion = canonical(folder.name)
        except ValueError as error:
            raise DataError(f"{folder}: {error}; take this folder away, or get CK+48 again.") from None
        for picture in lists.pictures_in(folder):
            match = _FRAME.match(picture.stem)
            if match is None:
                raise DataError(f"{picture}: its name must read like S010_004_00000017.png; get CK+48 again.")
            name = picture.stem.upper()
            if name in samples:
                raise DataError(f"{picture}: the same frame is also {samples[name].path}; get CK+48 again.")
            samples[name] = lists.Sample(name, emotion, picture, subject=match[1].upper())
    return list(samples.values())


DATASETS.add("ckplus", Dataset(CARD, load_ckplus))
DATASETS.add("ckplus-random", Dataset(RANDOM_CARD, load_ckplus_random))
