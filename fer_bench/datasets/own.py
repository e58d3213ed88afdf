"""Anyone's own pictures: `folder:PATH` (one sub-folder per emotion) and `csv:PATH` (paths and labels)."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fer_bench.datasets.base import FaceSet, check_allowed
from fer_bench.emotions import canonical, in_order
from fer_bench.errors import DataError
from fer_bench.faces import UnreadablePictureError, open_picture, stack

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
SIDES = (48, 224)
"""Pictures are stored as squares with the median side of the set, within these bounds."""


def load_folder(path: Path, split: str) -> FaceSet:
    """One sub-folder per emotion, in any usual spelling ("happy", "Happiness").

    With sub-folders train, validation (or val) and test, each is that split; without, all of it is the test split.
    Raises DataError where the folder is missing, empty or has no emotion folders.
    """
    check_allowed(split)
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; give one that has a sub-folder per emotion.")
    base = _split_folder(path, split)
    files: list[tuple[Path, str]] = []
    strangers: list[str] = []
    for folder in sorted(entry for entry in base.iterdir() if entry.is_dir()):
        try:
            emotion = canonical(folder.name)
        except ValueError:
            strangers.append(folder.name)
            continue
        pictures = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        files.extend((file, emotion) for file in pictures)
    if not files:
        seen = f" (it has {', '.join(strangers[:5])})" if strangers else ""
        raise DataError(f"{base}: no pictures in sub-folders named after emotions{seen}; e.g. {base.name}/happy/1.jpg.")
    notes = (f"folders not named after an emotion were left out: {', '.join(strangers)}",) if strangers else ()
    return _decode(f"folder:{path}", split, files, base, notes)


def load_csv(path: Path, split: str) -> FaceSet:
    """A CSV with a column path (or filepath, file, image) and a column emotion (or label); paths relative to the file.

    A column split (train, validation, test) chooses; without it, all rows are the test split. Raises DataError,
    naming the file and line, for a missing file, missing columns, or an unknown emotion or split.
    """
    check_allowed(split)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; give a CSV with the columns path and emotion.")
    files: list[tuple[Path, str]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [column.strip().lower() for column in next(reader, [])]
            where = next((header.index(name) for name in ("path", "filepath", "file", "image") if name in header), None)
            what = next((header.index(name) for name in ("emotion", "label") if name in header), None)
            which = header.index("split") if "split" in header else None
            if where is None or what is None:
                raise DataError(f"{path}, line 1: the columns must be path and emotion, not {', '.join(header) or 'none'}.")
            for line in reader:
                if not any(cell.strip() for cell in line):
                    continue
                if len(line) != len(header):
                    raise DataError(f"{path}, line {reader.line_num}: {len(line)} columns where there must be {len(header)}.")
                if which is not None and not any(line[which].strip().lower() in names for names in SPLIT_NAMES.values()):
                    raise DataError(f"{path}, line {reader.line_num}: the split must be train, validation or test.")
                try:
                    emotion = canonical(line[what])
                except ValueError as error:
                    raise DataError(f"{path}, line {reader.line_num}: {error}.") from None
                mine = split == "test" if which is None else line[which].strip().lower() in SPLIT_NAMES[split]
                if mine:
                    files.append((path.parent / line[where].strip(), emotion))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: this is not a readable UTF-8 CSV file ({error}).") from None
    if not files:
        raise DataError(f"{path}: no rows of the {split} split; a column split with the value {split} marks them.")
    return _decode(f"csv:{path}", split, files, path.parent, ())


def _split_folder(path: Path, split: str) -> Path:
    if not any((path / name).is_dir() for names in SPLIT_NAMES.values() for name in names):
        if split != "test":
            raise DataError(f"{path}: no {split} split; sub-folders train, validation and test make one each.")
        return path
    for name in SPLIT_NAMES[split]:
        if (path / name).is_dir():
            return path / name
    raise DataError(f"{path}: there is no sub-folder {split}.")


def _decode(name: str, split: str, files: list[tuple[Path, str]], base: Path, notes: tuple[str, ...]) -> FaceSet:
    images: list[Image.Image] = []
    kept: list[tuple[Path, str]] = []
    skipped: list[str] = []
    for file, emotion in files:
        try:
            picture = open_picture(file)
        except UnreadablePictureError as error:
            skipped.append(str(error))
            print(f"skipped {error}", file=sys.stderr)
            continue
        if max(picture.size) > 2 * SIDES[1]:
            picture.thumbnail((2 * SIDES[1], 2 * SIDES[1]))  # bounds memory; nothing larger is ever used
        images.append(picture)
        kept.append((file, emotion))
    if not kept:
        raise DataError(f"{base}: none of its {len(files):,} pictures could be read; the first: {skipped[0]}")
    side = int(np.clip(np.median([min(image.size) for image in images]), *SIDES))
    emotions = in_order(emotion for _, emotion in kept)
    labels = np.array([emotions.index(emotion) for _, emotion in kept], dtype=np.int64)
    ids = tuple(file.relative_to(base).as_posix() if file.is_relative_to(base) else str(file) for file, _ in kept)
    return FaceSet(name, split, emotions, stack(images, side), labels, ids, tuple(skipped), notes)
