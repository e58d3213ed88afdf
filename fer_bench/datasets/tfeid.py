"""TFEID (Chen and Yen, 2007), posed photographs of 40 people, from its folders.

    TFEID/anger/f01_....jpg ...      a folder per emotion, a picture's name starts with the person's

A folder's emotion is the first word of its name ("anger", "anger_h", "Happiness (slight)"), the nearest one above the
picture that is an emotion. Where none is, the two letters after the last underscore of the picture's name say it ("ng"
neutral, "ag" anger, "cg" contempt, "dg" disgust, "fg" fear, "hg" happiness, "sg" sadness, "pg" surprise); pictures that
neither tells are left out, and a note says so. Every picture of the copy counts, whatever its intensity and view, and
copies differ in those: there is no official number of pictures, and the data hash in a result tells copies apart.

There is no official split: this one is by subject (`splits.by_subject` over the people in the copy). The largest face
of each picture is cut out (`fer_bench.faces`) and kept at 96 x 96.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_bench.cards import DatasetCard
from fer_bench.datasets import lists, splits
from fer_bench.datasets.base import DATASETS, Dataset, FaceSet, check_allowed
from fer_bench.emotions import EIGHT, canonical
from fer_bench.errors import DataError

PEOPLE = 40
SIDE = 96
CODES = {
    "ng": "neutral", "ag": "anger", "cg": "contempt", "dg": "disgust",
    "fg": "fear", "hg": "happiness", "sg": "sadness", "pg": "surprise",
}  # fmt: skip
_PERSON = re.compile(r"([a-z]*\d+)[_-]", re.IGNORECASE)
LAYOUT = "a folder per emotion with the pictures (anger/f01_....jpg), their names starting with the person's"

CARD = DatasetCard(
    name="tfeid",
    title="TFEID",
    emotions=EIGHT,
    counts=(),
    licence="academic research only, under a signed agreement",
    source="from the Brain Mapping Laboratory of National Yang-Ming University, Taipei (http://bml.ym.edu.tw/tfeid/)",
    paper="Chen, Yen, Taiwanese Facial Expression Image Database, National Yang-Ming University, 2007",
)


def load_tfeid(root: Path | None, split: str) -> FaceSet:
    """One split by subject: uint8 (N, 96, 96, 3), eight emotions.

    Raises DataError where it is missing, and where the names of the pictures do not tell who is who. Pictures that
    cannot be read are named in `skipped`; the notes say in how many no face was found.
    """
    check_allowed(split)
    samples, strangers = _found(root) if root and root.is_dir() else ([], 0)
    if not samples or root is None:
        raise lists.not_here(CARD, root, LAYOUT)
    people = {sample.subject for sample in samples}
    if len(people) > PEOPLE:
        raise DataError(
            f"{root}: its pictures' names start with {len(people):,} different persons where TFEID has {PEOPLE}, so "
            "they cannot be split by subject; restore the original names (f01_....jpg)."
        )
    notes = lists.check_listed(CARD, root, "people", len(people), PEOPLE)
    mask = splits.by_subject([sample.subject for sample in samples], split)
    chosen = [sample for sample, wanted in zip(samples, mask, strict=True) if wanted]
    faceless: list[str] = []
    cut = functools.partial(lists.largest_face, faceless=faceless)
    faces = lists.decode("tfeid", split, chosen, EIGHT, SIDE, cut=cut)
    if strangers:
        notes += (f"{strangers:,} picture(s) whose folder and name tell no emotion were left out",)
    person = {sample.id: sample.subject for sample in chosen}
    subjects = np.array([person[name] for name in faces.ids])
    return replace(faces, notes=notes + lists.no_face(faceless, split), subjects=subjects)


def _found(root: Path) -> tuple[list[lists.Sample], int]:
    """(the pictures of the copy, how many more tell no emotion). DataError for a name that tells no person."""
    samples, names, strangers = [], set(), 0
    for folder in sorted({root, *(entry for entry in root.rglob("*") if entry.is_dir())}):
        for picture in lists.pictures_in(folder):
            emotion = _emotion(picture.relative_to(root))
            if emotion is None:
                strangers += 1
                continue
            match = _PERSON.match(picture.stem)
            if match is None:
                raise DataError(f"{picture}: its name must start with the person's, as in f01_....jpg; restore it.")
            whole = picture.relative_to(root)
            short = whole.with_suffix("").as_posix()
            name = whole.as_posix() if short in names else short  # f01_x.jpg and f01_x.png are two pictures
            names.add(name)
            samples.append(lists.Sample(name, emotion, picture, subject=match[1].lower()))
    return samples, strangers


def _emotion(picture: Path) -> str | None:
    """The emotion that the folders above the picture name, or else the end of its own name, or None."""
    for folder in reversed(picture.parts[:-1]):
        try:
            return canonical(re.split(r"[^A-Za-z]", folder.strip(), maxsplit=1)[0])
        except ValueError:
            continue
    return CODES.get(picture.stem.lower().rpartition("_")[2][:2])


DATASETS.add("tfeid", Dataset(CARD, load_tfeid))
