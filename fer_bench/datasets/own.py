"""Anyone's own pictures: `folder:PATH` (one sub-folder per emotion) and `csv:PATH` (paths and labels)."""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fer_bench.datasets.base import FaceSet, check_allowed
from fer_bench.datasets.lists import room
from fer_bench.emotions import canonical, in_order
from fer_bench.errors import DataError
from fer_bench.faces import PICTURE_SUFFIXES, UnreadablePictureError, open_picture, square
from fer_bench.files import files_below, label

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
SIDES = (48, 224)
"""Pictures are stored as squares with the median side of the set, within these bounds."""


def load_folder(path: Path, split: str) -> FaceSet:
    """One sub-folder per emotion, in any usual spelling ("happy", "Happiness"); pictures may lie deeper inside.

    Links are followed, and what is called ".name" is left out, as `files.files_below` says.
    With sub-folders train, validation (or val) and test, each is that split; without, all of it is the test split.
    Raises DataError where the folder is missing, empty or has no emotion folders.
    """
    base, files, emotions, notes = list_pictures(path, split)
    return _decode(f"folder:{path}", split, list(zip(map(Path, files), emotions, strict=True)), base, notes)


def list_pictures(path: Path, split: str) -> tuple[Path, list[str], list[str], tuple[str, ...]]:
    """(the folder of the split, its pictures in order, the emotion of each, notes) for `load_folder`, which see."""
    check_allowed(split)
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; give one that has a sub-folder per emotion.")
    base = _split_folder(path, split)
    files: list[str] = []
    emotions: list[str] = []
    strangers: list[str] = []
    others: Counter[str] = Counter()
    for folder in sorted(entry for entry in base.iterdir() if entry.is_dir()):
        try:
            emotion = canonical(folder.name)
        except ValueError:
            strangers.append(label(folder.name))
            continue
        pictures = []
        for file in files_below(folder):
            suffix = label(os.path.splitext(file)[1].lower())
            if suffix in PICTURE_SUFFIXES:
                pictures.append(file)
            else:
                others[suffix or "none"] += 1
        files += sorted(pictures, key=lambda file: file.split(os.sep))
        emotions += [emotion] * len(pictures)
    notes = (f"folders not named after an emotion were left out: {', '.join(strangers)}",) if strangers else ()
    if others:
        kinds = ", ".join(f"{suffix} ({count:,})" for suffix, count in others.most_common())
        notes += (f"files whose names do not end as those of pictures were left out: {kinds}",)
    if not files:
        seen = f" (it has {', '.join(strangers[:5])})" if strangers else ""
        raise DataError(f"{base}: no pictures in sub-folders named after emotions{seen}; e.g. {base.name}/happy/1.jpg.")
    return base, files, emotions, notes


def load_csv(path: Path, split: str) -> FaceSet:
    """A CSV with a column path (or filepath, file, image) and a column emotion (or label); paths relative to the file.

    A column split (train, validation, test) chooses; without it, all rows are the test split. Raises DataError,
    naming the file and line, for a missing file, missing columns, an unknown emotion or split, or a picture that is
    listed twice, in one split or in two.
    """
    check_allowed(split)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; give a CSV with the columns path and emotion.")
    files: list[tuple[Path, str]] = []
    listed: dict[str, str] = {}  # picture -> its split, whatever way its path is written
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for line, picture, emotion, its_split in _rows(file, path):
                place = os.path.abspath(picture)
                if place in listed:
                    both = "" if listed[place] == its_split else f", in {listed[place]} and in {its_split}"
                    raise DataError(f"{path}, line {line}: {picture} is listed twice{both}; keep one row per picture.")
                listed[place] = its_split
                if its_split == split:
                    files.append((picture, emotion))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: this is not a readable UTF-8 CSV file ({error}); save it as one.") from None
    if not files:
        raise DataError(f"{path}: no rows of the {split} split; a column split with the value {split} marks them.")
    return _decode(f"csv:{path}", split, files, path.parent, ())


def _rows(lines: Iterable[str], path: Path) -> Iterator[tuple[int, Path, str, str]]:
    """(line, picture, emotion, split) of every row; DataError, naming the line, for a bad one."""
    reader = csv.reader(lines)
    header = [column.strip().lower() for column in next(reader, [])]
    picture = next((header.index(name) for name in ("path", "filepath", "file", "image") if name in header), None)
    emotion = next((header.index(name) for name in ("emotion", "label") if name in header), None)
    if picture is None or emotion is None:
        raise DataError(f"{path}, line 1: the columns must be path and emotion, not {', '.join(header) or 'none'}.")
    for cells in reader:
        row = [cell.strip() for cell in cells]
        where = f"{path}, line {reader.line_num}"
        if not any(row):
            continue
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} columns where there must be {len(header)}, as in line 1.")
        if not row[picture]:
            raise DataError(f"{where}: the path is empty; name a picture.")
        try:
            shown = canonical(row[emotion])
        except ValueError as error:
            raise DataError(f"{where}: {error}.") from None
        named = row[header.index("split")].lower() if "split" in header else "test"
        split = next((split for split, names in SPLIT_NAMES.items() if named in names), None)
        if split is None:
            raise DataError(f"{where}: the split must be train, validation or test, not {named!r}.")
        yield reader.line_num, path.parent / row[picture], shown, split


def _split_folder(path: Path, split: str) -> Path:
    if not any((path / name).is_dir() for names in SPLIT_NAMES.values() for name in names):
        if split != "test":
            raise DataError(f"{path}: no {split} split; sub-folders train, validation and test make one each.")
        return path
    for name in SPLIT_NAMES[split]:
        if (path / name).is_dir():
            return path / name
    raise DataError(f"{path}: no {split} split; add a sub-folder {split} beside those that are there.")


def _decode(name: str, split: str, files: list[tuple[Path, str]], base: Path, notes: tuple[str, ...]) -> FaceSet:
    # Sizes first (from the files' heads alone), so that no more than one picture is ever in memory at its full size.
    sides = [side for file, _ in files if (side := _shorter_side(file))]
    side = int(np.clip(np.median(sides or SIDES[:1]), *SIDES))
    images = room(name, split, (len(files), side, side))
    kept: list[tuple[Path, str]] = []
    skipped: list[str] = []
    for file, emotion in files:
        try:
            picture = np.asarray(square(open_picture(file), side))
        except UnreadablePictureError as error:
            skipped.append(str(error))
            print(f"skipped {error}", file=sys.stderr)
            continue
        if picture.ndim == images.ndim == 3:  # the first in colour: all become so
            grey, images = images, room(name, split, (len(files), side, side, 3))
            images[: len(kept)] = grey[: len(kept), :, :, None]
        images[len(kept)] = picture[:, :, None] if picture.ndim == 2 and images.ndim == 4 else picture
        kept.append((file, emotion))
    if not kept:
        raise DataError(f"{base}: none of its {len(files):,} pictures could be read; the first: {skipped[0]}")
    emotions = in_order(emotion for _, emotion in kept)
    labels = np.array([emotions.index(emotion) for _, emotion in kept], dtype=np.int64)
    names = (file.relative_to(base).as_posix() if file.is_relative_to(base) else str(file) for file, _ in kept)
    ids = tuple(map(label, names))
    return FaceSet(name, split, emotions, images[: len(kept)], labels, ids, tuple(skipped), notes)


def _shorter_side(file: Path) -> int:
    """In pixels, without decoding; 0 where the file is no picture (`open_picture` says so by name)."""
    try:
        with Image.open(file) as image:
            return min(image.size)
    except Exception:
        return 0
