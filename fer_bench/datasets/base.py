"""What a data set is: a card and a loader that gives one split as a `FaceSet`, decoded once into one uint8 array."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fer_bench.cards import DatasetCard
from fer_bench.emotions import canonical, in_order
from fer_bench.errors import DataError
from fer_bench.pixels import STRIP
from fer_bench.registry import Registry

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class FaceSet:
    """One split of a data set, in memory.

    images: uint8 (N, H, W) grey or (N, H, W, 3) RGB, 0..255.   labels: int64 (N,), indices into `emotions`.
    emotions: each in any usual spelling ("happy"); held under their canonical names, in the order given.
    ids: N distinct sample names, stable between runs.          skipped: one line per picture that could not be read.
    masks: bool (N, H, W), true where the emotion shows (`rendered` only).
    intensity: float32 (N,), 0..1, strength of the expression (`rendered` only).
    subjects: unicode or int (N,), whom each picture shows, where several show the same person and it is known who.
    originals: N x 16 bytes, over what each file holds (`original_hash`), where splits may differ in size or mode.
    votes: float32 (N, K), rows of sum 1, how the raters' votes are spread over `emotions` (`ferplus` only).
    """

    name: str
    split: str
    emotions: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    ids: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader of a figure must know of this copy (an incomplete split, say)."""
    masks: np.ndarray | None = field(default=None, repr=False)
    intensity: np.ndarray | None = field(default=None, repr=False)
    subjects: np.ndarray | None = field(default=None, repr=False)
    originals: tuple[bytes, ...] | None = field(default=None, repr=False)
    votes: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        emotions = tuple(map(canonical, self.emotions))
        if len(set(emotions)) < len(emotions):
            raise ValueError(f"each emotion has one name, and {', '.join(self.emotions)} name one twice")
        object.__setattr__(self, "emotions", emotions)
        for name in ("images", "labels"):
            if not isinstance(given := getattr(self, name), np.ndarray):
                raise ValueError(f"{name} must be a numpy array, not a value of type {type(given).__name__}")
        if self.labels.size and self.labels.dtype.kind not in "iu":
            raise ValueError(f"labels must be whole numbers, indices into emotions, not {self.labels.dtype}")
        count = len(self.images)
        shape = self.images.shape
        if self.images.dtype != np.uint8 or not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)):
            raise ValueError("images must be uint8 (N, H, W) or (N, H, W, 3)")
        if len(self.labels) != count or len(self.ids) != count:
            raise ValueError(f"{count} images, {len(self.labels)} labels and {len(self.ids)} ids do not agree")
        if self.subjects is not None and getattr(self.subjects, "shape", None) != (count,):
            raise ValueError(f"subjects must be an array of {count}, one for each image")
        if self.originals is not None and len(self.originals) != count:
            raise ValueError(f"{count} images and {len(self.originals)} originals do not agree")
        if self.votes is not None and getattr(self.votes, "shape", None) != (count, len(self.emotions)):
            raise ValueError(f"votes must be an array of {count} x {len(self.emotions)}, a share for each emotion")
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.emotions):
            raise ValueError(f"labels must lie in 0..{len(self.emotions) - 1}")
        if len(set(self.ids)) != count:
            twice = Counter(self.ids).most_common(1)[0][0]
            raise ValueError(f"ids must be distinct, and {twice!r} stands there twice")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def counts(self) -> dict[str, int]:
        """Pictures per emotion."""
        found = Counter(self.labels.tolist())
        return {emotion: found.get(index, 0) for index, emotion in enumerate(self.emotions)}

    def take(self, index: np.ndarray | Sequence[int]) -> FaceSet:
        """The pictures at these positions, in this order."""
        index = np.asarray(index, dtype=np.int64)
        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            ids=tuple(self.ids[i] for i in index),
            masks=None if self.masks is None else self.masks[index],
            intensity=None if self.intensity is None else self.intensity[index],
            subjects=None if self.subjects is None else self.subjects[index],
            originals=None if self.originals is None else tuple(self.originals[i] for i in index),
            votes=None if self.votes is None else self.votes[index],
        )

    def limit(self, count: int | None) -> FaceSet:
        """At most `count` pictures, spread evenly over the split (deterministic); None keeps all.

        Where the labels stand in a pattern (`rendered`), a spread over all may miss emotions. Where it gives one a
        share that is far from its own, the pictures are spread over each emotion instead, by `_in_proportion`.
        """
        if count is None or count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(np.int64)
        classes = len(self.emotions)
        share = count * np.bincount(self.labels, minlength=classes) / len(self)
        found = np.bincount(self.labels[chosen], minlength=classes)
        # What chance would do to labels in no order is left alone: figures stand that were measured on such a choice.
        bound = 1 + np.minimum(share / 2, 3 * np.sqrt(share))
        if (abs(found - share) > bound).any() or (found < (share >= 1)).any():
            chosen = _in_proportion(self.labels, share)
        return self.take(chosen)

    def restrict(self, emotions: Sequence[str], lacking: bool = False) -> FaceSet:
        """Only the pictures of these emotions, labels renumbered to their canonical order; none given is all.

        Votes are then not kept, for some are for emotions that are gone.
        Raises DataError where the data set does not know one of them. lacking: allows that, with a note that is also
        told on standard error: the validation split of one's own pictures may be small.
        """
        kept = in_order(emotions) or self.emotions
        if kept == self.emotions:
            return self
        missing = set(kept) - set(self.emotions)
        notes = self.notes
        if missing:
            absent = f"no pictures labelled {', '.join(in_order(missing))}"
            if not lacking:
                raise DataError(f"{self.name} has {absent} in its {self.split} split; add some, or take another track.")
            notes += (f"the {self.split} split has {absent}",)
            tell(f"{self.name}: {notes[-1]}")
        number = np.array([kept.index(e) if e in kept else -1 for e in self.emotions], dtype=np.int64)
        labels = number[self.labels]
        chosen = self.take(np.flatnonzero(labels >= 0))
        gone = {"votes": None} if hasattr(self, "votes") else {}  # a list of files has none
        return replace(chosen, emotions=kept, labels=labels[labels >= 0], notes=notes, **gone)

    def noted(self, emotions: Sequence[str], who: str) -> FaceSet:
        """Itself, with a note, also told on standard error, on pictures of other emotions, which `restrict` takes away.

        who: begins that note, as "NAME does not know" does. Emotions without a picture are no loss.
        """
        counts = Counter(self.emotions[label] for label in self.labels.tolist())
        gone = {emotion: counts[emotion] for emotion in self.emotions if emotion not in emotions and counts[emotion]}
        if not gone:
            return self
        told = ", ".join(f"{count:,} of {emotion}" for emotion, count in gone.items())
        note = f"{who} {' or '.join(gone)}: pictures of the {self.split} split are left out ({told})"
        tell(f"{self.name}: {note}.")
        return replace(self, notes=(*self.notes, note))

    def picture_hashes(self) -> list[bytes]:
        """16 bytes per picture, over its pixels alone: equal for equal pictures."""
        pictures = np.ascontiguousarray(self.images)
        return [hashlib.blake2b(picture.tobytes(), digest_size=16).digest() for picture in pictures]

    def content_hash(self) -> str:
        """64 hex digits over shape, pixels and emotion of every picture, in order."""
        digest = hashlib.sha256(repr(self.images.shape[1:]).encode())
        names = [emotion.encode() for emotion in self.emotions]
        for picture, label in zip(self.picture_hashes(), self.labels.tolist(), strict=True):
            digest.update(picture + names[label] + b"\0")
        return digest.hexdigest()


def _in_proportion(labels: np.ndarray, share: np.ndarray) -> np.ndarray:
    """int64, ascending: as many positions of each label as its share says, rounded so that they keep their sum.

    labels: int (N,). share: float (K,), at most the pictures of each label, with a whole sum. Within a label they are
    spread evenly, and a part of a step further for each label, so that they are not of the same few people.
    """
    quota = np.floor(share).astype(np.int64)
    rest = round(share.sum()) - quota.sum()
    quota[np.argsort(quota - share, kind="stable")[:rest]] += 1
    chosen = []
    for label, wanted in enumerate(quota.tolist()):
        places = np.flatnonzero(labels == label)
        steps = np.arange(wanted) + (label + 0.5) / len(share)
        chosen.append(places[(steps * len(places) / max(wanted, 1)).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def original_hash(picture: Image.Image) -> bytes:
    """16 bytes over a decoded picture at its own size: equal for equal pixels, grey ones like the RGB of them.

    A strip of rows at a time, for it may be large.
    """
    digest = hashlib.blake2b(repr(picture.size).encode(), digest_size=16)
    for top in range(0, picture.height, STRIP):
        strip = picture.crop((0, top, picture.width, min(top + STRIP, picture.height)))
        digest.update(strip.convert("RGB").tobytes())
    return digest.digest()


def duplicated_in(subset: FaceSet, other: FaceSet) -> np.ndarray:
    """bool (N,): which pictures of `subset` also stand, pixel for pixel, in `other`, as stored or as their files are.

    Raises DataError where the two are stored at two sizes or modes and what their files hold is not known.
    """
    files = subset.originals is not None and other.originals is not None
    if subset.images.shape[1:] != other.images.shape[1:] and not files and len(subset) and len(other):
        raise DataError(
            f"{subset.name}: pictures of {subset.images.shape[1:]} and {other.images.shape[1:]} cannot be compared."
        )
    stored = set(other.picture_hashes())
    found = np.array([digest in stored for digest in subset.picture_hashes()], dtype=bool)
    if files:
        known = set(other.originals)
        found |= np.array([digest in known for digest in subset.originals], dtype=bool)
    return found


@functools.cache
def tell(text: str) -> None:
    """Say it on standard error once, however often it is met."""
    print(text, file=sys.stderr)


Loader = Callable[[Path | None, str], FaceSet]


@dataclass(frozen=True)
class Dataset:
    """An entry of the registry. `load(root, split)` gives a FaceSet; root is the data set's own folder or None."""

    card: DatasetCard
    load: Loader
    apart: bool = False
    """No picture stands in two of its splits, by the way in which they are made."""


DATASETS: Registry[Dataset] = Registry("data set")


def register(card: DatasetCard) -> Callable[[Loader], Loader]:
    """Decorator: register a loader of one's own, (root, split) -> FaceSet, under its card's name.

    Of that name it is found by `load_dataset`, and by a track that names it (`protocols.TRACKS.add`). Training cannot
    read its test split, as `check_allowed` has it. A loader raises DataError, naming folder and mend, for missing data.
    Raises ValueError where the name is taken.
    """

    def decorate(load: Loader) -> Loader:
        @functools.wraps(load)
        def guarded(root: Path | None, split: str) -> FaceSet:
            check_allowed(split)
            return load(root, split)

        DATASETS.add(card.name, Dataset(card, guarded))
        return load

    return decorate


_forbidden: list[str] = []


@contextlib.contextmanager
def forbid_split(split: str) -> Iterator[None]:
    """While this is open, loading that split of anything raises RuntimeError. Training runs inside it.

    Raises ValueError where there is no such split.
    """
    _check_split(split)
    _forbidden.append(split)
    try:
        yield
    finally:
        _forbidden.remove(split)


class ForbiddenSplitError(RuntimeError):
    """A split was read where `forbid_split` is open for it: a defect that must never be passed over."""


def check_allowed(split: str) -> None:
    """Raise ForbiddenSplitError where `forbid_split` is open for it, ValueError where there is no such split."""
    _check_split(split)
    if split in _forbidden:
        raise ForbiddenSplitError(f"the {split} split must not be read here: training never sees it")


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; the splits are {', '.join(SPLITS)}")
