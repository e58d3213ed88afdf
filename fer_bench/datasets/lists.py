"""What the loaders of licensed data sets share: finding their folders, reading their lists, decoding what is listed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fer_bench.cards import DatasetCard
from fer_bench.datasets.base import FaceSet
from fer_bench.errors import DataError
from fer_bench.faces import Box, UnreadablePictureError, crop, detect_faces, open_picture, square

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"))
WHOLE = 0.99
"""Least fraction of the official pictures that a copy must list, and of the listed ones that must be readable."""
PARTIAL = "FER_BENCH_PARTIAL"
"""Environment variable: where it is 1, less than `WHOLE` is taken too, and the notes of every figure say how much."""

CONTAINER = Path("/sys/fs/cgroup/memory.max")
"""Where Linux (cgroup v2) says how many bytes a container may have."""

GLANCE = 256
"""Longest side, in pixels, of the copy in which `largest_face` looks first."""


@dataclass(frozen=True)
class Sample:
    """One listed picture."""

    id: str
    emotion: str
    path: Path
    """Where it should be; its case may be another."""
    listed: str = ""
    """The list and the line that name it; "" where it was found by looking into folders."""
    subject: str = ""
    box: Box | None = None
    """Left, top, right, bottom of the face in pixels, where the list gives it."""


Cut = Callable[[Image.Image, Sample], Image.Image]
"""What is kept of a picture; it becomes the largest centred square of that, at the data set's side."""


def whole(image: Image.Image, sample: Sample) -> Image.Image:
    """The picture as it is: faces that come cropped."""
    return image


def largest_face(image: Image.Image, sample: Sample, faceless: list[str]) -> Image.Image:
    """The square around the largest face; where none is found the whole picture, and its id goes to `faceless`.

    A small copy is searched first: one large face per picture is the rule, and this finds it in a fifth of the time.
    YuNet and Haar draw slightly different boxes, so that the data hash in a result tells which of them was there.
    """
    scale = min(1.0, GLANCE / max(image.size))
    small = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR)
    boxes = [tuple(round(edge / scale) for edge in face.box) for face in detect_faces(small)]
    if not boxes and scale < 1:
        boxes = [face.box for face in detect_faces(image)]
    if not boxes:
        faceless.append(sample.id)
        return image
    return crop(image, max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1])))


def not_here(card: DatasetCard, root: Path | None, layout: str) -> DataError:
    """The error for data that is missing: what, where it must lie, whom to ask, and that a licence is agreed to."""
    folder = root or Path("$FER_BENCH_DATA") / card.name.split("-")[0]
    return DataError(
        f"{card.title} is not in {folder}: it must hold {layout}. Ask for it: {card.source}. It cannot be downloaded "
        f"here, as you must agree to its licence first ({card.licence})."
    )


def inside(root: Path | None, *candidates: str) -> Path | None:
    """The first of these paths ("basic/EmoLabel") below `root` that exists, in any case; None where none does."""
    for candidate in candidates:
        path = root
        for part in candidate.split("/"):
            path = path and Names()(path / part)
        if path is not None:
            return path
    return None


class Names:
    """Looks files up in any case; each folder is read at most once, and only where a name is not there as written."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, Path]] = {}

    def __call__(self, path: Path) -> Path | None:
        """The file or folder of this name, or else of this name in another case, or None."""
        if path.exists():
            return path
        if path.parent not in self._folders:
            entries = sorted(path.parent.iterdir(), reverse=True) if path.parent.is_dir() else []
            self._folders[path.parent] = {entry.name.lower(): entry for entry in entries}
        return self._folders[path.parent].get(path.name.lower())


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number from 1, text without blanks around it) of each line that is not empty; a BOM and CR LF are taken off.

    Raises DataError where the file cannot be read as UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: this is not a readable UTF-8 text file ({error}); get it again.") from None
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def pictures_in(folder: Path) -> list[Path]:
    """The picture files directly in a folder, by name; the `.name` and `._name` files of other systems are left out."""
    files = (f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    return sorted((f for f in files if f.is_file()), key=lambda file: (file.name.lower(), file.name))


def no_face(faceless: Sequence[str], split: str) -> tuple[str, ...]:
    """The note on pictures in which `largest_face` found none."""
    note = f"no face was found in {len(faceless):,} {split} picture(s); their centred square was kept"
    return (note,) if faceless else ()


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in a folder, by name."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def least() -> float:
    """`WHOLE`, or 0 where a part of an official set was asked for."""
    return 0.0 if os.environ.get(PARTIAL) == "1" else WHOLE


def check_listed(card: DatasetCard, source: Path, what: str, found: int, official: int) -> tuple[str, ...]:
    """A note where a list or folder holds less than the official set; DataError for too many or less than `least`."""
    if found > official or found < least() * official:
        part = f", or set {PARTIAL}=1 to work with this part" if found < official else ""
        raise DataError(
            f"{source}: {found:,} of the {official:,} official {what}; this is not a whole copy of {card.title}, "
            f"get it again{part}."
        )
    lacking = official - found
    return (f"{found:,} of the {official:,} official {what}; this copy lacks {lacking:,}",) if lacking else ()


def decode(
    name: str,
    split: str,
    samples: Sequence[Sample],
    emotions: tuple[str, ...],
    side: int,
    mode: str = "RGB",
    cut: Cut = whole,
    needed: float = 0.0,
) -> FaceSet:
    """Read these pictures: uint8 (N, side, side) for mode "L", (N, side, side, 3) for "RGB".

    One picture at a time is in memory at its full size, and the array is filled in place. A picture that is absent or
    broken is left out and named in `skipped`. Raises DataError where none can be read, where more than 1 - `needed` of
    them cannot, and where the array is larger than this machine's memory.
    """
    from tqdm import tqdm

    if not samples:
        raise DataError(f"{name}: the {split} split has no pictures in this copy; get it again.")
    images = room(name, split, (len(samples), side, side) + ((3,) if mode == "RGB" else ()))
    kept: list[Sample] = []
    skipped: list[str] = []
    find = Names()
    for sample in tqdm(samples, desc=f"{name} {split}", unit="picture", leave=False, disable=None, delay=2):
        try:
            path = find(sample.path)
            if path is None:
                raise UnreadablePictureError(f"{sample.path}: there is no such file")
            picture = cut(open_picture(path), sample)
            images[len(kept)] = np.asarray(square(picture.convert(mode), side))
        except UnreadablePictureError as error:
            listed = f" (listed in {sample.listed})" if sample.listed else ""
            skipped.append(f"{str(error).rstrip('.')}{listed}")
            print(f"skipped {skipped[-1]}", file=sys.stderr)
            continue
        kept.append(sample)
    if not kept or len(kept) < needed * len(samples):
        part = f", or set {PARTIAL}=1 to work with the others" if kept else ""
        raise DataError(
            f"{name}: {len(skipped):,} of the {len(samples):,} {split} pictures cannot be read, the first: "
            f"{skipped[0]}; get this copy again{part}."
        )
    labels = np.array([emotions.index(sample.emotion) for sample in kept], dtype=np.int64)
    ids = tuple(sample.id for sample in kept)
    return FaceSet(name, split, emotions, images[: len(kept)], labels, ids, tuple(skipped))


def room(name: str, split: str, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 array to fill; DataError, with both figures, where it cannot fit."""
    needed = int(np.prod(shape, dtype=np.int64))
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not every system says
        memory = needed
    with contextlib.suppress(OSError, ValueError):  # a container may have less than its machine; "max" is no bound
        memory = min(memory, int(CONTAINER.read_text()))
    if needed <= memory:
        try:
            return np.empty(shape, dtype=np.uint8)
        except MemoryError:
            pass
    raise DataError(
        f"{name}: {shape[0]:,} {split} pictures of {shape[1]} x {shape[1]} pixels take {needed / 1e9:.1f} GB of "
        f"memory, and this machine has {memory / 1e9:.1f} GB; use one with more."
    )
