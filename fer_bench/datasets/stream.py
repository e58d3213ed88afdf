"""Training pictures that do not fit into memory: listed at once, decoded when their batch comes.

`to_stream` gives a split as paths and labels, `Streamed` its batches: worker processes decode ahead of training, and
what is held is the list and a few batches, however many pictures there are. `InMemory` gives the same batches from one
tensor on the training device. Both give uint8 pictures, which are augmented in whole batches.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fer_bench.datasets import lists
from fer_bench.datasets.base import FaceSet
from fer_bench.datasets.own import SIDES, _shorter_side, list_pictures
from fer_bench.emotions import in_order
from fer_bench.errors import DataError, UserError
from fer_bench.faces import PICTURE_SUFFIXES, UnreadablePictureError, open_picture, square
from fer_bench.files import files_below, label

if TYPE_CHECKING:  # the loaders of data sets import this module, and importing them must not take torch
    import torch
    from torch import Tensor

BOUND = 4 * 2**30
"""Bytes of decoded pictures (4 GiB) above which a training split is streamed without being asked to."""
GLANCED = 1000
"""Pictures of a folder that are looked at to settle the size and colour of all."""
MOST_WORKERS = 8

TEXT = np.dtypes.StringDType()
"""Strings in one block: Python's own would be copied page by page into each worker as it counts references."""


@dataclass(frozen=True, eq=False)
class Listed:
    """One split of a data set as files that are decoded when asked for.

    labels: int64 (N,), indices into `emotions`.   paths (`file` reads them), ids: N strings.
    boxes: int32 (N, 4), the listed face (left, top, right, bottom, in pixels; all zero where there is none), or None
    where pictures come cropped.
    """

    name: str
    split: str
    emotions: tuple[str, ...]
    paths: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    side: int
    """Pictures become uint8 (side, side) for mode "L", (side, side, 3) for "RGB"."""
    mode: str = "RGB"
    cut: lists.Cut = lists.whole
    boxes: np.ndarray | None = None
    least: float = lists.WHOLE
    """Least fraction of the pictures that must be readable."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """What the split would take in memory."""
        return len(self) * self.side**2 * (3 if self.mode == "RGB" else 1)

    # The same rules as for a split in memory; they ask for labels, emotions and `take` only.
    counts = FaceSet.counts
    restrict = FaceSet.restrict
    limit = FaceSet.limit

    def take(self, index: np.ndarray | Sequence[int]) -> Listed:
        """The pictures at these positions, in this order."""
        index = np.asarray(index, dtype=np.int64)
        boxes = None if self.boxes is None else self.boxes[index]
        chosen = {name: getattr(self, name)[index] for name in ("paths", "labels", "ids")}
        return replace(self, **chosen, boxes=boxes)

    def content_hash(self) -> str:
        """64 hex digits over name, emotion and bytes on disk of every file, in order, and the size and mode.

        Not over the pixels, which would take an epoch's time: a changed picture of the same length is not noticed.
        """
        digest = hashlib.sha256(f"listed {self.side} {self.mode}".encode())
        for row, (name, number) in enumerate(zip(self.ids, self.labels.tolist(), strict=True)):
            try:
                size = os.stat(self.file(row)).st_size
            except OSError:
                size = -1  # absent, or its name is written in another case
            digest.update(f"{name}\0{self.emotions[number]}\0{size}\0".encode())
        return digest.hexdigest()

    def file(self, row: int) -> str:
        """The path of one picture."""
        return os.fsdecode(self.paths[row].encode("latin-1"))

    def read(self, row: int, find: Callable[[Path], Path | None]) -> np.ndarray:
        """One picture, decoded. find: a `lists.Names`. Raises UnreadablePictureError for an absent or broken file."""
        path = Path(self.file(row))
        found = path if path.exists() else find(path)
        if found is None:
            raise UnreadablePictureError(f"{label(path)}: there is no such file.")
        box = None if self.boxes is None or not self.boxes[row].any() else tuple(self.boxes[row].tolist())
        sample = lists.Sample(self.ids[row], self.emotions[self.labels[row]], found, box=box)
        picture = self.cut(open_picture(found), sample)
        return np.asarray(square(picture if picture.mode == self.mode else picture.convert(self.mode), self.side))


LISTS: dict[str, Callable[[Path | None, str], Listed]] = {}
"""Data set -> what lists a split of it: the data sets that may be larger than memory."""


def from_samples(
    name: str,
    split: str,
    samples: Sequence[lists.Sample],
    emotions: tuple[str, ...],
    side: int,
    cut: lists.Cut = lists.whole,
    notes: tuple[str, ...] = (),
) -> Listed:
    """What a data set's list names, as `lists.decode` takes it, in colour."""
    if not samples:
        raise DataError(f"{name}: the {split} split has no pictures in this copy; get it again.")
    labels = np.array([emotions.index(sample.emotion) for sample in samples], dtype=np.int64)
    boxes = np.array([sample.box or (0, 0, 0, 0) for sample in samples], dtype=np.int32)
    paths, ids = _packed([str(sample.path) for sample in samples]), np.array([s.id for s in samples], dtype=TEXT)
    return Listed(
        name, split, emotions, paths, labels, ids, side, "RGB", cut,
        boxes if boxes.any() else None, lists.least(), notes,
    )  # fmt: skip


def list_folder(path: Path, split: str) -> Listed:
    """A folder with one sub-folder per emotion, as `own.load_folder` reads it, in the same order.

    Their side is the median of at most `GLANCED` pictures, spread evenly; they are grey where all of these are.
    """
    base, files, emotions, notes = list_pictures(path, split)
    glanced = [Path(files[i]) for i in np.linspace(0, len(files) - 1, min(len(files), GLANCED)).round().astype(int)]
    sides = [side for file in glanced if (side := _shorter_side(file))]
    side = int(np.clip(np.median(sides or SIDES[:1]), *SIDES))
    known = in_order(emotions)
    number = {emotion: index for index, emotion in enumerate(known)}
    labels = np.array([number[emotion] for emotion in emotions], dtype=np.int64)
    start = len(str(base)) + 1
    ids = np.array([label(name[start:].replace(os.sep, "/")) for name in files], dtype=TEXT)
    mode = "L" if all(_is_grey(file) for file in glanced) else "RGB"
    name = f"folder:{path}"
    return Listed(name, split, known, _packed(files), labels, ids, side, mode, least=0.0, notes=notes)


def _packed(paths: Sequence[str]) -> np.ndarray:
    """Paths as `TEXT`, which holds no name that is not UTF-8: a character for each byte. `Listed.file` undoes it."""
    return np.array([os.fsencode(path).decode("latin-1") for path in paths], dtype=TEXT)


def _is_grey(file: Path) -> bool:
    """Whether a picture is grey; true where it is none, which decides nothing."""
    try:
        return open_picture(file).mode == "L"
    except UnreadablePictureError:
        return True


def to_stream(name: str, split: str, wanted: bool | None = None) -> Listed | None:
    """A training split as files, where it is to be streamed; None where it is to be read into memory.

    name: as in `load_dataset`. wanted: True streams, False never does, None streams what takes more than `BOUND`.
    Raises UserError for True and a data set that cannot be streamed, DataError for missing or broken data.
    """
    from fer_bench.datasets import data_folder

    kind, _, path = name.partition(":")
    folder = Path(path).expanduser() if kind == "folder" and path else None
    if wanted is False or (not wanted and folder is None and name not in LISTS):
        return None
    if folder is None and name not in LISTS:
        able = ", ".join(sorted(LISTS))
        raise UserError(f"{name} is always read into memory; --stream is for {able} and folder:PATH, so leave it out.")
    if folder is not None and not wanted:
        pictures = sum(os.path.splitext(file)[1].lower() in PICTURE_SUFFIXES for file in files_below(folder))
        largest = pictures * SIDES[1] ** 2 * 3
        if largest <= BOUND:  # settled without a look into the files
            return None
    files = list_folder(folder, split) if folder is not None else LISTS[name](data_folder(name), split)
    return files if wanted or files.nbytes > BOUND else None


class Source(Protocol):
    """Where training gets its batches from."""

    def __len__(self) -> int: ...

    def batches(self, chosen: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (int64, on the CPU) of each batch -> its uint8 pictures and int64 labels, on the device, in order."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """A `Source` that holds all pictures on the training device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, chosen: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`."""
        import torch

        whole = torch.cat(tuple(chosen)).to(self.labels.device)  # one copy, not one that is waited for in every step
        for rows in whole.split([len(rows) for rows in chosen]):
            yield self.images[rows], self.labels[rows]


class Streamed:
    """A `Source` that decodes each batch when it comes, in worker processes ahead of training.

    A picture that cannot be read is told of once on standard error and skipped: its place goes to the next readable
    one of its batch, so that batches keep their size.
    """

    def __init__(self, files: Listed, device: torch.device, sharing: int = 1, workers: int | None = None) -> None:
        """workers: 0 decodes in this process; None takes the cores of this machine, which `sharing` processes share."""
        import torch

        self.files, self.device = files, device
        self.workers = min((os.cpu_count() or 1) // sharing, MOST_WORKERS) if workers is None else workers
        self.labels = torch.from_numpy(files.labels).to(device)
        self.skipped: dict[int, str] = {}
        """Row -> why it could not be read, of those met so far."""

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, chosen: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`. Raises DataError where a whole batch or more than 1 - `least` of the split cannot be read."""
        import torch
        from torch.utils.data import DataLoader

        loader = DataLoader(
            Decoder(self.files), batch_size=None, sampler=chosen, num_workers=self.workers,
            pin_memory=self.device.type == "cuda", generator=torch.Generator().manual_seed(0),  # draw from no other
        )  # fmt: skip
        for rows, images, failures in loader:
            self._report(failures)
            if not len(rows):
                first = next(iter(failures.values()))
                raise DataError(f"{self.files.name}: no picture of a batch can be read, the first: {first}")
            labels = self.labels[rows.to(self.device, non_blocking=True)]
            yield images.to(self.device, non_blocking=True), labels

    def _report(self, failures: dict[int, str]) -> None:
        for row, reason in failures.items():
            if row not in self.skipped:
                self.skipped[row] = reason
                print(f"skipped {reason}", file=sys.stderr)
        allowed = (1 - self.files.least) * len(self)
        if len(self.skipped) > allowed:
            raise DataError(
                f"{self.files.name}: {len(self.skipped):,} of the {len(self):,} {self.files.split} pictures cannot be "
                f"read, the last: {next(reversed(self.skipped.values()))}; get this copy again."
            )


class Decoder:
    """What a worker process runs: a map-style data set whose items are whole batches."""

    def __init__(self, files: Listed) -> None:
        self.files, self.find = files, lists.Names()

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor, dict[int, str]]:
        """Rows -> the rows that stand for them, their pictures, and those that could not be read, with the reason."""
        import torch

        pictures: list[np.ndarray | None] = []
        failures: dict[int, str] = {}
        for row in rows.tolist():
            try:
                pictures.append(self.files.read(row, self.find))
            except UnreadablePictureError as error:
                pictures.append(None)
                failures[row] = str(error)
        readable = [place for place, picture in enumerate(pictures) if picture is not None]
        if not readable:
            return rows[:0], rows[:0], failures
        stands = [next((other for other in readable if other >= place), readable[0]) for place in range(len(rows))]
        return rows[stands], torch.from_numpy(np.stack([pictures[place] for place in stands])), failures
