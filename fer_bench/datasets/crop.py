"""The faces of photographs, cut out: what `own` reads as `folder:PATH`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from fer_bench.datasets.own import largest_face, other_endings, pictures_below, place_of
from fer_bench.errors import DataError
from fer_bench.faces import UnreadablePictureError, crop, open_picture
from fer_bench.files import filled_folder, label

WORKERS = 4
"""Threads that open pictures and find faces, at most."""


def crop_folder(source: Path, out: Path, say: Callable[[str], None] = print) -> Counter[str]:
    """Write the largest face of every picture below `source` to `out`, whole or not at all.

    Faces are found as `predict` finds them, framed as FER2013's are (`faces.crop`) and written as PNG, in their own
    pixels, under the pictures' names and sub-folders. say: gets one line per picture in which no face was found or that
    cannot be read; both are left out. Returns how many pictures are "cropped", "faceless" and "unreadable".
    Raises UserError for an `out` that is not empty, DataError for a `source` that is missing or gives no face.
    """
    if not source.is_dir():
        raise DataError(f"{source}: there is no such folder; give one of pictures.")
    with filled_folder(out) as staging:
        others: Counter[str] = Counter()
        pictures: list[str] = []
        known: dict[str, str] = {}  # where a picture really lies -> the first way to it
        real: dict[str, str] = {}
        for file in pictures_below(source, others):
            first = known.setdefault(place_of(file, real), file)
            if first == file:
                pictures.append(file)
            else:
                say(f"skipped {label(file)}: a link leads from it to {label(first)}, which is cut already.")
        cut = [staging / name for name in _names(os.path.relpath(file, source) for file in pictures)]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(min(WORKERS, cores)) as pool:
            done = pool.map(_cut, pictures, cut)
            ends = list(tqdm(done, total=len(pictures), unit="picture", leave=False, disable=None, delay=2))
        for line in (*(line for _, line in ends if line), *other_endings(others)):
            say(line)
        found = Counter(end for end, _ in ends)
        if not pictures:
            raise DataError(f"{source}: there are no pictures in it; give a folder of some.")
        if not found["cropped"]:
            raise DataError(f"{source}: none of its {len(pictures):,} pictures gave a face; name others.")
    return found


def _names(files: Iterable[str]) -> list[str]:
    """What each is called as a PNG; of two that would be called alike, the later one keeps its old ending."""
    names: dict[str, None] = {}
    for file in files:
        name = f"{os.path.splitext(file)[0]}.png"
        if name in names:
            name = f"{file}.png"
        names[name] = None
    return list(names)


def _cut(file: str, target: Path) -> tuple[str, str]:
    """Write the largest face of a picture. Returns what becomes of the picture, and a line where that is nothing."""
    try:
        image = open_picture(file)
    except UnreadablePictureError as error:
        return "unreadable", f"skipped {error}"
    box = largest_face(image)
    if box is None:
        return "faceless", f"skipped {label(file)}: no face was found in it."
    target.parent.mkdir(parents=True, exist_ok=True)
    crop(image, box).save(target)
    return "cropped", ""
