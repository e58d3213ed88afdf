"""Train, validation and test of one's own pictures, as a CSV for `csv:PATH`; the pictures stay where they are."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_bench.datasets.base import SPLITS
from fer_bench.datasets.own import list_pictures, split_folders
from fer_bench.datasets.own_csv import NAMELESS, has_splits, read_rows, read_table
from fer_bench.datasets.splits import TRAIN, VALIDATION, by_subject, held_out, random_frames
from fer_bench.emotions import in_order
from fer_bench.errors import DataError, UserError
from fer_bench.files import atomic_write, label, unlistable


class Picture(NamedTuple):
    """One picture. split: "" where it has none yet.   subject: whom it shows, "" where that is not told.

    id: its name among the others, by which it is drawn: the same wherever the set lies.
    """

    path: str
    id: str
    emotion: str
    split: str
    subject: str


def write_division(source: str, out: Path, seed: int, say: Callable[[str], None]) -> dict[str, int]:
    """Write path, emotion, split and, where known, subject of every picture, and return split -> pictures.

    source: a folder with one sub-folder per emotion, or a CSV, as `load_folder` and `load_csv` read them. Without
    splits it is cut into 70 / 10 / 20 %; where train is there, what lacks is held out of it (a tenth for validation, a
    fifth for test). Where a column says who is who, people are drawn, and all pictures of one that are drawn go to one
    side; else each emotion is cut on its own, and files that are the same go to one side. say: gets a line for an
    emotion that a split lacks, for copies and what is wrong with them, and for people of a split that was there who are
    in another, too.
    The same pictures and seed give the same file byte for byte. Paths are relative where pictures lie below its folder.
    Raises UserError for splits that are all there, an `out` that is no .csv or is the source, and DataError for a
    picture whose name a CSV cannot hold, or as the loaders do; OutputError as `atomic_write`.
    """
    kind, _, rest = source.partition(":")
    place = Path(rest if kind in ("folder", "csv") and rest else source).expanduser()
    if out.suffix.lower() != ".csv":
        raise UserError(f"{out}: splits are written as .csv; give a name that ends so.")
    if out.exists() and place.exists() and out.samefile(place):
        raise UserError(f"{out}: this is what is divided, and it would be replaced; give another name.")
    table = place.is_file() or (place.suffix.lower() == ".csv" and not place.is_dir())
    found = _of_table(place) if table else _of_folder(place)
    copies = _copies([picture.path for picture in found])
    pictures = divided(found, str(place), seed, copies)
    atomic_write(out, _as_csv(pictures, out).encode())
    _tell_copies(pictures, copies, lambda told: say(f"{out}: {told}"))
    for split in SPLITS:
        shown = {picture.emotion for picture in pictures if picture.split == split}
        lacking = in_order({picture.emotion for picture in pictures} - shown)
        if lacking:
            say(f"{out}: the {split} split has no pictures labelled {', '.join(lacking)}")
    sides = {(picture.subject, picture.split) for picture in pictures if picture.subject}
    several = len(sides) - len({subject for subject, _ in sides})
    if several:
        say(f"{out}: people are in several splits, as they were in those that were there; divide all pictures anew")
    return {split: sum(picture.split == split for picture in pictures) for split in SPLITS}


def divided(
    pictures: list[Picture], source: str, seed: int = 0, copies: Mapping[str, str] | None = None
) -> list[Picture]:
    """The same pictures, all with a split. Raises UserError where nothing is to be cut, or nothing to cut it from.

    copies: path of a file -> that of the first that holds the same; of one emotion they go to one side, unless people
    are drawn.
    """
    drawable = {picture.path: picture.id for picture in pictures if picture.split in ("", "train")}
    same = {path: drawable[first] for path, first in (copies or {}).items() if first in drawable}
    there = {picture.split for picture in pictures}
    if there == set(SPLITS):
        raise UserError(f"{source} has train, validation and test already; train on it as it is.")
    if not there & {"", "train"}:
        raise UserError(f"{source} has {' and '.join(sorted(there))} but no train split to cut; call it train.")
    people = any(picture.subject for picture in pictures if picture.split in ("", "train"))
    names = [picture.subject or f"{NAMELESS}{picture.id}" for picture in pictures]
    if not people:
        names = [same.get(picture.path, picture.id) for picture in pictures]
    groups = ["" if people else picture.emotion for picture in pictures]
    result = list(pictures)
    for group in sorted(set(groups)):
        pool = [i for i, picture in enumerate(pictures) if groups[i] == group and picture.split in ("", "train")]
        drawn = [names[i] for i in pool] if people else list(dict.fromkeys(names[i] for i in pool))
        side = dict(zip(drawn, _drawn(drawn, there - {"", "train"}, people, seed), strict=True))
        for i in pool:
            result[i] = pictures[i]._replace(split=side[names[i]])
    few = [split for split in SPLITS if not any(picture.split == split for picture in result)]
    if few:
        what = "people" if people else "pictures of an emotion"
        raise UserError(f"{source} has too few {what} for three splits ({' and '.join(few)} would be empty); add some.")
    return result


def _copies(paths: list[str]) -> dict[str, str]:
    """Path -> the first path whose file holds the same, byte for byte, for those that are not that first one."""
    sizes: dict[int, list[str]] = {}
    for path in paths:
        with contextlib.suppress(OSError):  # what is absent is told of where it is read
            sizes.setdefault(os.stat(path).st_size, []).append(path)
    first: dict[bytes, str] = {}
    copies: dict[str, str] = {}
    for path in chain.from_iterable(group for group in sizes.values() if len(group) > 1):
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except OSError:
            continue
        if first.setdefault(digest, path) != path:
            copies[path] = first[digest]
    return copies


def _tell_copies(pictures: list[Picture], copies: Mapping[str, str], say: Callable[[str], None]) -> None:
    """A line on files that are there more than once, and on those that have two labels or stand in two splits."""
    known = {picture.path: picture for picture in pictures}
    pairs = [(known[path], known[first]) for path, first in copies.items()]
    if not pairs:
        return
    say(f"{len(pairs):,} of the {len(pictures):,} pictures are copies of others, byte for byte")
    for differing, told in (("emotion", "under another emotion"), ("split", "in another split")):
        apart = [(one, other) for one, other in pairs if getattr(one, differing) != getattr(other, differing)]
        if apart:
            one, other = apart[0]
            pair = f"{label(one.path)} and {label(other.path)}"
            say(f"{len(apart):,} of them stand {told} than their original, such as {pair}")


def _drawn(names: list[str], there: set[str], people: bool, seed: int) -> list[str]:
    """The split of each name, of those that are not there."""
    salt = f"own {seed}"
    result = np.full(len(names), "train", dtype=object)
    if not there:
        for split in SPLITS:
            drawn = by_subject(names, split, salt) if people else random_frames(names, split, seed)
            result[drawn] = split
    elif names:
        lacking, part = ("test", 1 - TRAIN - VALIDATION) if "validation" in there else ("validation", VALIDATION)
        result[held_out(names, part, salt)] = lacking
    return result.tolist()


def _of_folder(path: Path) -> list[Picture]:
    """Raises DataError as `list_pictures`."""
    try:
        splits = tuple(split_folders(path)[0]) if path.is_dir() else ()
    except OSError as error:
        raise unlistable(error) from None
    pictures = []
    for split in splits or ("test",):
        base, files, emotions, _ = list_pictures(path, split)
        for file, emotion in zip(files, emotions, strict=True):
            name = label(os.path.relpath(file, base).replace(os.sep, "/"))
            pictures.append(Picture(file, name, emotion, split if splits else "", ""))
    return pictures


def _of_table(path: Path) -> list[Picture]:
    """Raises DataError as `read_table`."""
    rows, known = read_table(path), has_splits(path)
    if not rows:
        raise DataError(f"{path}: it has no rows; list a picture in each.")
    names = [os.path.relpath(row.picture, path.parent) for row in rows]
    return [
        Picture(str(row.picture), name, row.emotion, row.split if known else "", row.subject)
        for name, row in zip(names, rows, strict=True)
    ]


def _as_csv(pictures: list[Picture], out: Path) -> str:
    """The text of the file, which is checked to be read as these pictures."""
    columns = ("path", "emotion", "split", "subject")[: 4 if any(picture.subject for picture in pictures) else 3]
    home = out.absolute().parent
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    files = []
    for picture in pictures:
        file = Path(picture.path).absolute()
        files.append(file)
        name = str(file.relative_to(home) if file.is_relative_to(home) else file)
        writer.writerow((name, picture.emotion, picture.split, picture.subject)[: len(columns)])
    read = [row.picture for row in read_rows(io.StringIO(text.getvalue(), newline=""), home / out.name)]
    for file, found in zip(files, read, strict=True):
        if file != found or str(file) != label(file):
            raise DataError(f"{label(file)}: this name cannot stand in a CSV; give the picture another.")
    return text.getvalue()
