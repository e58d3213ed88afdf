"""Anyone's own pictures: `folder:PATH`, one sub-folder per emotion; `csv:PATH` is in `own_csv`.

Each picture is one cropped face, as those of every data set here are: no face is looked for in it, and a photograph of
which a face is a small part is answered near chance. `crop` (`python -m fer_bench.datasets crop`) cuts the faces out.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from fer_bench.datasets.base import FaceSet, check_allowed, original_hash, tell
from fer_bench.datasets.lists import room
from fer_bench.datasets.numbers import numbered
from fer_bench.emotions import EMOTIONS, canonical, in_order
from fer_bench.errors import DataError, UserError
from fer_bench.faces import (
    HEIC_MEND,
    HEIC_SUFFIXES,
    NEAR,
    PICTURE_FORMATS,
    PICTURE_SUFFIXES,
    Box,
    UnreadablePictureError,
    detect_faces,
    open_picture,
    square,
)
from fer_bench.files import files_below, label, unlistable

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "development", "publictest"),
    "test": ("test", "testing", "privatetest"),
}
"""What a split is called, in any case; FER2013's names are among them."""
SIDES = (48, 224)
"""Pictures are stored as squares with the median side of the set, within these bounds."""

LOOKED = 20
"""Pictures, spread evenly over a split, in which a face is looked for, to tell whether they are cropped."""
LARGE = 96
"""Shorter side, in pixels, above which it is: smaller pictures are hardly whole photographs."""
LEAST = 0.25
"""Part of a cropped picture that its face's box covers at least: FER2013's cover 0.85, one with a margin of half its
side 0.35, and in one of twice a face's side it is 0.2."""


def load_folder(path: Path, split: str) -> FaceSet:
    """One sub-folder per emotion, in any usual spelling ("happy", "Happiness"); pictures may lie deeper inside.

    Each picture is one cropped face; where most look like whole photographs, a note says so, as `load_csv` does too.
    Links are followed, and what is called ".name" is left out, as `files.files_below` says; a picture that is met
    twice, through a link, counts once. With sub-folders train, validation and test (SPLIT_NAMES, in any case) each is
    that split; without, all of it is the test split.
    Raises DataError where the folder is missing, empty or has no emotion folders, where a folder in it cannot be
    listed, where two folders are one split or one folder two, and for a picture under two emotions.
    """
    base, files, emotions, notes = list_pictures(path, split)
    return decode_files(f"folder:{path}", split, list(zip(map(Path, files), emotions, strict=True)), base, notes)


def list_pictures(path: Path, split: str) -> tuple[Path, list[str], list[str], tuple[str, ...]]:
    """(the folder of the split, its pictures in order, the emotion of each, notes) for `load_folder`, which see."""
    check_allowed(split)
    try:
        if not path.is_dir():
            raise no_folder(path)
        base, beside = _split_folder(path, split)
        folders = sorted(entry for entry in base.iterdir() if entry.is_dir())
        loose = sum(_is_loose(entry) for folder in {path, base} for entry in folder.iterdir())
    except OSError as error:
        raise unlistable(error) from None
    files: list[str] = []
    emotions: list[str] = []
    strangers: list[str] = []
    others: Counter[str] = Counter()
    known: dict[str, str] = {}  # where a picture really lies -> its emotion
    real: dict[str, str] = {}
    linked = 0
    for folder in folders:
        try:
            emotion = canonical(folder.name)
        except ValueError:
            strangers.append(folder.name)
            continue
        pictures = pictures_below(folder, others)
        _check_below(folder, emotion, pictures, None if base == path else split)
        for file in pictures:
            place = place_of(file, real)
            if place in known and known[place] != emotion:
                raise DataError(
                    f"{label(file)}: this picture stands under {known[place]} too, through a link; keep one of them."
                )
            linked += place in known
            if place not in known:
                known[place] = emotion
                files.append(file)
                emotions.append(emotion)
    named = ", ".join(map(_stranger, strangers))
    notes = (
        *((f"folders beside the splits were left out: {', '.join(beside)}",) if beside else ()),
        *((f"folders not named after an emotion were left out: {named}",) if named else ()),
        *((f"pictures in no emotion's folder were left out: {loose:,}",) if loose else ()),
        *((f"links to pictures that are there already were left out: {linked:,}",) if linked else ()),
        *other_endings(others),
    )
    if not files:
        seen = f" (it has {', '.join(map(_stranger, strangers[:5]))})" if strangers else ""
        mend = _near_miss(split, strangers) or f"e.g. {base.name}/happy/1.jpg"
        mend = numbered(strangers) or _deeper(base, base != path) or mend
        mend = _emotions_beside({} if base == path else {split: base}, beside) or mend
        raise DataError(f"{base}: no pictures in sub-folders named after emotions{seen}; {mend}.")
    tell_notes(f"folder:{path}", split, notes)
    return base, files, emotions, notes


def _check_below(folder: Path, emotion: str, pictures: Sequence[str], split: str | None) -> None:
    """Raise DataError for a folder in an emotion's that is named after another emotion, or after another split.

    Its pictures would get a label, or stand in a split, that its name says they do not have. split: that of the
    folder; None where it is in none.
    """
    start = len(str(folder)) + 1
    for inner in sorted({os.path.dirname(file[start:]) for file in pictures} - {""}):
        for depth, name in enumerate(parts := inner.split(os.sep), start=1):
            place = label(folder.joinpath(*parts[:depth]))
            if is_emotion(name) and canonical(name) != emotion:
                raise DataError(
                    f"{place}: a folder of {canonical(name)} lies in that of {emotion}; move it out beside it, or give "
                    "it a name that is no emotion's."
                )
            if (named := split_named(name)) is not None and named != split:
                raise DataError(
                    f"{place}: the {named} split lies in an emotion's folder; put the emotions into the splits "
                    f"({label(name)}/{label(folder.name)}), or give it a name that is no split's."
                )


def no_folder(path: Path) -> DataError:
    """The error for a path that is no folder of pictures."""
    if path.suffix.lower() == ".csv" and path.is_file():
        return DataError(f"{path}: this is a file, not a folder; give csv:{label(path)}.")
    return DataError(f"{path}: there is no such folder; give one that has a sub-folder per emotion.")


def no_table(path: Path) -> DataError:
    """The error for a path that is no CSV."""
    if path.is_dir():
        return DataError(f"{path}: this is a folder, not a CSV; give folder:{label(path)}.")
    return DataError(f"{path}: there is no such file; give a CSV with the columns path and emotion.")


def tell_notes(name: str, split: str, notes: Sequence[str]) -> None:
    """Each on standard error, once: what is left out of one's own pictures is not to vanish without a word."""
    for note in notes:
        tell(f"{name} ({split}): {note}")


def _stranger(folder: str) -> str:
    """The name of a folder that is no emotion, with the emotion that it may be a misspelling of."""
    near = difflib.get_close_matches(folder.lower(), EMOTIONS, 1, 0.8)
    return label(folder) + (f" ({near[0]}, misspelt?)" if near else "")


def pictures_below(folder: str | os.PathLike[str], others: Counter[str]) -> list[str]:
    """The pictures in a folder and below it, in order; `others` counts the other files' endings.

    Raises DataError as `files_below`.
    """
    pictures = []
    for file in files_below(folder):
        suffix = label(os.path.splitext(file)[1].lower())
        if suffix in PICTURE_SUFFIXES:
            pictures.append(file)
        else:
            others[suffix or "none"] += 1
    return sorted(pictures, key=lambda file: file.split(os.sep))


def other_endings(others: Counter[str]) -> tuple[str, ...]:
    """The note on what `pictures_below` counted."""
    kinds = ", ".join(f"{suffix} ({count:,})" for suffix, count in others.most_common())
    mend = f"; {HEIC_MEND}" if HEIC_SUFFIXES & others.keys() else ""
    return (f"files whose names do not end as those of pictures were left out: {kinds}{mend}",) if others else ()


def place_of(file: str | os.PathLike[str], folders: dict[str, str]) -> str:
    """Where a file really lies. folders: where those met so far do, as to find that out takes ten times as long."""
    folder, name = os.path.split(file)
    if os.path.islink(file):
        return os.path.realpath(file)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name)


def is_emotion(name: str) -> bool:
    """Whether a folder of this name is an emotion's."""
    try:
        return bool(canonical(name))
    except ValueError:
        return False


def split_named(name: str) -> str | None:
    """The split that is called so, in any case; None where none is."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def split_folders(path: Path) -> tuple[dict[str, Path], list[str]]:
    """(split -> its folder, the names of the other folders beside the splits)."""
    found: dict[str, Path] = {}
    others: list[str] = []
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        its_split = split_named(folder.name)
        if its_split is None:
            others += [] if folder.name.startswith(".") else [label(folder.name)]
        elif its_split in found:
            raise DataError(
                f"{path}: {found[its_split].name} and {folder.name} are both the {its_split} split; put all into one."
            )
        else:
            found[its_split] = folder
    for one, other in combinations(found.values(), 2):
        if one.samefile(other):
            raise DataError(f"{path}: {one.name} and {other.name} are one folder; each split needs its own pictures.")
    return found, others


def _split_folder(path: Path, split: str) -> tuple[Path, list[str]]:
    """(the folder of a split, the names of the other folders beside the splits)."""
    found, others = split_folders(path)
    if split in found:
        return found[split], others
    if found or split != "test":
        divide = f"python -m fer_bench.datasets split {shlex.quote(label(path))} -o my.csv"
        add = f"add a sub-folder {split} beside those that are there, or divide them: {divide}"
        mend = _near_miss(split, others) or (add if found else f"divide the pictures: {divide}")
        mend = _emotions_beside(found, others) or ("" if found else numbered(others) or _deeper(path)) or mend
        raise DataError(f"{path}: no {split} split; {mend}.")
    return path, []


def _emotions_beside(found: dict[str, Path], names: list[str]) -> str:
    """The mend where folders of emotions stand beside one that is called like a split, else ""."""
    emotions = list(filter(is_emotion, names))
    if not found or not emotions:
        return ""
    taken = ", ".join(folder.name for folder in found.values())
    return f"{taken} is taken for a split and {', '.join(emotions[:3])} left out: put them into test, or rename {taken}"


DEPTH, MOST = 3, 1000
"""How far below a folder, and in how many folders, `_deeper` looks."""


def _deeper(path: Path, is_split: bool = False) -> str:
    """The mend where folders of emotions, or of splits of them, lie in a folder further below, else ""."""
    level = [path]
    for _ in range(DEPTH):
        level = [folder for above in level for folder in _folders(above)][:MOST]
        found = [
            folder for folder in level
            if any(map(_has_emotions, (folder, *(inner for inner in _folders(folder) if split_named(inner.name)))))
        ]  # fmt: skip
        if len(found) > 1:
            several = f"{len(found):,} folders in it have them, the first {label(found[0])}"
            return (
                f"{several}: list all pictures in a CSV, and who is who in its column subject where each is a person's"
            )
        if found:
            place = label(found[0])
            return f"move what is in {place} up into it" if is_split else f"give {place}, which has them"
    return ""


def _folders(path: Path) -> list[Path]:
    """The folders directly in one, by name, without hidden ones; none where it cannot be listed."""
    with contextlib.suppress(OSError):
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return []


def _has_emotions(path: Path) -> bool:
    """Whether two folders in this one at least are called after emotions, or numbered."""
    return sum(folder.name.isdecimal() or is_emotion(folder.name) for folder in _folders(path)) >= 2


def _near_miss(split: str, names: list[str]) -> str:
    """The mend where one of these folders looks like the split by its name, else ""."""
    near = [name for name in names if difflib.get_close_matches(name.lower(), SPLIT_NAMES[split])]
    return f"call {label(near[0])} {split} if it is that split" if near else ""


def _is_loose(entry: Path) -> bool:
    picture = entry.suffix.lower() in PICTURE_SUFFIXES and not entry.name.startswith(".")
    return picture and not entry.is_dir()


def decode_files(
    name: str,
    split: str,
    files: Sequence[tuple[Path, str]],
    base: Path,
    notes: tuple[str, ...],
    subjects: Sequence[str] | None = None,
) -> FaceSet:
    """The pictures that can be read of these files and emotions, as one array; the others are named in `skipped`.

    base: what ids are relative to. subjects: whom each file shows. Raises DataError where none can be read.
    """
    # Sizes first (from the files' heads alone), so that no more than one picture is ever in memory at its full size.
    sides = [side for file, _ in files if (side := _shorter_side(file))]
    side = int(np.clip(np.median(sides or SIDES[:1]), *SIDES))
    images = room(name, split, (len(files), side, side))
    kept: list[int] = []
    skipped: list[str] = []
    originals: list[bytes] = []
    looked = set(np.linspace(0, len(files) - 1, min(len(files), LOOKED)).round().astype(int).tolist())
    cropped: list[bool] = []
    for index, (file, _) in enumerate(files):
        try:
            opened = open_picture(file)
        except UnreadablePictureError as error:
            skipped.append(str(error))
            print(f"skipped {error}", file=sys.stderr)
            continue
        if index in looked and min(opened.size) > LARGE:
            with contextlib.suppress(UserError):  # no detector is here
                cropped.append(_is_cropped(opened))
        originals.append(original_hash(opened))
        picture = np.asarray(square(opened, side))
        if picture.ndim == images.ndim == 3:  # the first in colour: all become so
            grey, images = images, room(name, split, (len(files), side, side, 3))
            images[: len(kept)] = grey[: len(kept), :, :, None]
        images[len(kept)] = picture[:, :, None] if picture.ndim == 2 and images.ndim == 4 else picture
        kept.append(index)
    if not kept:
        place = name.partition(":")[2]
        raise DataError(f"{place}: none of its {len(files):,} pictures could be read; the first: {skipped[0]}")
    if (whole := cropped.count(False)) > len(cropped) / 2:
        notes += (
            f"the face is a small part of {whole} of the {len(cropped)} {split} pictures looked at: they look like "
            "whole photographs, out of which python -m fer_bench.datasets crop cuts the faces",
        )
        print(f"{name}: {notes[-1]}", file=sys.stderr)
    known = None if subjects is None else np.array([subjects[index] for index in kept])
    files = [files[index] for index in kept]
    emotions = in_order(emotion for _, emotion in files)
    labels = np.array([emotions.index(emotion) for _, emotion in files], dtype=np.int64)
    names = (file.relative_to(base).as_posix() if file.is_relative_to(base) else str(file) for file, _ in files)
    ids = tuple(map(label, names))
    return FaceSet(
        name, split, emotions, images[: len(kept)], labels, ids, tuple(skipped), notes,
        subjects=known, originals=tuple(originals),
    )  # fmt: skip


def largest_face(image: Image.Image) -> Box | None:
    """The box of the largest face, as `predict` finds it; None without one. Raises UserError as `detect_faces`."""
    return max((face.box for face in detect_faces(image)), key=_area, default=None)


def _is_cropped(image: Image.Image) -> bool:
    """Whether a face fills a good part of it; so it is where none is found, as a tight crop may leave too little."""
    small = image.copy()
    small.thumbnail((NEAR, NEAR))  # a face of any size to speak of is found in it, and the search is ten times as fast
    for looked in (small, image):
        if box := largest_face(looked):
            return _area(box) >= LEAST * looked.width * looked.height
    return True


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shorter_side(file: Path) -> int:
    """In pixels, without decoding; 0 where the file is no picture (`open_picture` says so by name)."""
    try:
        if not file.is_file():  # a pipe, which would be waited for
            return 0
        with Image.open(file, formats=PICTURE_FORMATS) as image:
            return min(image.size)
    except Exception:
        return 0
