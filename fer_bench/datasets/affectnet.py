"""AffectNet's manually annotated pictures (Mollahosseini, Hasani and Mahoor, 2017), from either official layout.

The later release, whose faces come cropped to 224 x 224 pixels, one annotation file per picture:

    train_set/images/0.jpg      train_set/annotations/0_exp.npy     (val_set/... alike)

The first release, whose pictures are cut to the face that the list gives:

    Manually_Annotated_file_lists/training.csv, validation.csv
        subDirectory_filePath, face_x, face_y, face_width, face_height, facial_landmarks, expression, valence, arousal
    Manually_Annotated_Images/<number>/<name>.jpg

Expressions 0..7 are read; 8 (none), 9 (uncertain) and 10 (no face) are left out. The official test set was never
published, and every paper tests on the validation set: so the test split here is the official validation set, and the
validation split is the tenth of the official training set that `splits.a_tenth` chooses by the sample's name (its path
in the list, or its number in the later release; the two releases therefore hold different tenths).

Pictures are decoded one at a time and kept at 96 x 96: the training split (some 259,000 pictures) takes 7.2 GB of
memory that way, and twice that for a moment where a track leaves contempt out. At 224 x 224 it would take 39 GB. A
machine that has less than the split needs is told so before the first picture is read. Training needs none of this: it
streams the split from disk (`stream.py`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from fer_bench.cards import DatasetCard
from fer_bench.datasets import lists, stream
from fer_bench.datasets.base import DATASETS, Dataset, FaceSet, check_allowed
from fer_bench.datasets.splits import a_tenth
from fer_bench.emotions import EIGHT
from fer_bench.errors import DataError
from fer_bench.faces import Box

LABELS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
"""AffectNet's 0, 1, ... 7."""
LEFT_OUT = (8, 9, 10)
"""None, uncertain, no face."""
OFFICIAL = {"train": 287_651, "test": 4_000}
"""Pictures with one of the eight expressions."""
SIDE = 96
COLUMNS = (
    "subdirectory_filepath", "face_x", "face_y", "face_width", "face_height",
    "facial_landmarks", "expression", "valence", "arousal",
)  # fmt: skip
"""Of the lists; some copies of validation.csv lack the line that names them."""
BOX = COLUMNS[1:5]
FOLDERS = {"train": "train_set", "test": "val_set"}
CSVS = {"train": "training.csv", "test": "validation.csv"}
LAYOUT = (
    "train_set and val_set, each with images/*.jpg and annotations/*_exp.npy, or Manually_Annotated_Images/ and "
    "Manually_Annotated_file_lists/training.csv and validation.csv"
)

CARD = DatasetCard(
    name="affectnet",
    title="AffectNet (manual)",
    emotions=EIGHT,
    counts=tuple(OFFICIAL.items()),  # before a tenth of train is held out, which the two releases do differently
    licence="non-commercial research only, under an agreement that the head of a laboratory signs",
    source="by the form at http://mohammadmahoor.com/affectnet/",
    paper="Mollahosseini, Hasani, Mahoor, AffectNet, IEEE Transactions on Affective Computing, 2017",
)


def load_affectnet(root: Path | None, split: str) -> FaceSet:
    """One split of AffectNet: uint8 (N, 96, 96, 3), eight emotions; test is the official validation set.

    Raises DataError where it is missing, where a list or annotation is wrong, where more than one in a hundred of its
    pictures is missing (fewer are named in `skipped`), and where the split does not fit into memory.
    """
    samples, notes = _of_split(root, split)
    faces = lists.decode("affectnet", split, samples, EIGHT, SIDE, cut=_face, needed=lists.least())
    return replace(faces, notes=notes)


def list_affectnet(root: Path | None, split: str) -> stream.Listed:
    """The same pictures, decoded when asked for. Raises DataError where the set is missing or a list is wrong."""
    samples, notes = _of_split(root, split)
    return stream.from_samples("affectnet", split, samples, EIGHT, SIDE, _face, notes)


def _of_split(root: Path | None, split: str) -> tuple[list[lists.Sample], tuple[str, ...]]:
    """The pictures of a split of ours, and notes."""
    check_allowed(split)
    part = "test" if split == "test" else "train"
    source, samples, notes = _samples(root, part)
    notes += lists.check_listed(CARD, source, f"{part} pictures of eight expressions", len(samples), OFFICIAL[part])
    if part == "train":
        held = a_tenth([sample.id for sample in samples])
        wanted = split == "validation"
        samples = [sample for sample, is_held in zip(samples, held, strict=True) if is_held == wanted]
    return samples, notes


def _samples(root: Path | None, part: str) -> tuple[Path, list[lists.Sample], tuple[str, ...]]:
    """Where they are listed, the pictures of an official part, and notes; of whichever layout is there."""
    folder, table = FOLDERS[part], CSVS[part]
    images, annotations = lists.inside(root, f"{folder}/images"), lists.inside(root, f"{folder}/annotations")
    if images and annotations:
        return annotations, _from_npy(part, images, annotations), ()
    images = lists.inside(root, "Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images")
    below = ("", "Manually_Annotated_file_lists/", "Manually_Annotated/Manually_Annotated_file_lists/")
    found = lists.inside(root, *(f"{folder}{table}" for folder in below))
    if images and found:
        return found, *_from_csv(found, images)
    raise lists.not_here(CARD, root, LAYOUT)


def _from_npy(part: str, images: Path, annotations: Path) -> list[lists.Sample]:
    """The later release: a picture for each number that has an annotation, in the order of the numbers."""
    found: list[tuple[int, str, Path]] = []
    for path in annotations.iterdir():
        stem = path.name.lower()
        if stem.endswith("_exp.npy") and (number := stem.removesuffix("_exp.npy")).isdecimal():
            found.append((int(number), number, path))
    samples = []
    for _, number, path in sorted(found):
        emotion = _emotion(_stored(path), str(path))
        if emotion is not None:
            samples.append(lists.Sample(f"{part}_{number}", emotion, images / f"{number}.jpg", str(path)))
    return samples


def _stored(path: Path) -> str:
    """The one value in an annotation file. A pickle inside it is refused: it could run anything."""
    try:
        value = np.load(path, allow_pickle=False).item()
        return value.decode() if isinstance(value, bytes) else str(value)
    except Exception as error:  # a broken header raises one of many kinds, a missing one OSError, a pickle ValueError
        pickled = isinstance(error, ValueError)  # what NumPy takes for one; its words tell how to open it all the same
        reason = "it holds something else" if pickled else str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise DataError(f"{path}: this is not a .npy file of one expression ({reason}); get it again.") from None


def _emotion(text: str, where: str) -> str | None:
    """The emotion of an expression's number; None for those that are left out. DataError for anything else."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number in LEFT_OUT:
        return None
    if not 0 <= number < len(LABELS):
        raise DataError(f"{where}: the expression must be 0 to 10, not {text[:20]!r}; get the file again.")
    return LABELS[number]


def _from_csv(table: Path, images: Path) -> tuple[list[lists.Sample], tuple[str, ...]]:
    """The first release; a picture that is listed again keeps its first label, and a note says how many were."""
    samples: dict[str, lists.Sample] = {}
    again = 0
    for where, entry in _rows(table):
        name = entry[COLUMNS[0]].replace("\\", "/")
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DataError(f"{where}: {name[:60]!r} is no path inside {images.name}; get the list again.")
        emotion = _emotion(entry["expression"], where)
        if emotion is not None and name not in samples:
            samples[name] = lists.Sample(name, emotion, images / name, where, box=_box(entry, where))
        elif emotion is not None:
            again += 1
    notes = (f"{table.name} lists {again:,} picture(s) again; the first label of each was kept",) if again else ()
    return list(samples.values()), notes


def _rows(table: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, cells by column) of a list, with or without its line of names; DataError for a broken one."""
    header = COLUMNS
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for cells in reader:
                row = [cell.strip() for cell in cells]
                where = f"{table}, line {reader.line_num}"
                if reader.line_num == 1 and "expression" in map(str.lower, row):
                    header = tuple(cell.lower() for cell in row)
                    missing = ", ".join(sorted({COLUMNS[0], *BOX} - set(header)))
                    if missing:
                        raise DataError(f"{where}: there is no column {missing}; get the list again.")
                elif any(row):
                    if len(row) != len(header):
                        raise DataError(f"{where}: {len(row)} columns where there must be {len(header)}; get it again.")
                    yield where, dict(zip(header, row, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: this is not a readable UTF-8 CSV file ({error}); get it again.") from None


def _box(entry: dict[str, str], where: str) -> Box | None:
    """The listed face; None where the list has none ("NULL")."""
    if any(entry[name].lower() in ("", "null", "nan") for name in BOX):
        return None
    try:
        x, y, width, height = (round(float(entry[name])) for name in BOX)
    except (ValueError, OverflowError):
        width = height = 0
    if width < 1 or height < 1:
        found = ", ".join(entry[name] for name in BOX)
        raise DataError(f"{where}: face_x, face_y, face_width, face_height must be a box, not {found}; get it again.")
    return (x, y, x + width, y + height)


def _face(image: Image.Image, sample: lists.Sample) -> Image.Image:
    """The square around the listed face, as large as its longer side, moved and shrunk until it lies inside."""
    if sample.box is None:
        return image
    left, top, right, bottom = sample.box
    side = min(max(right - left, bottom - top), *image.size)
    x = min(max((left + right - side) // 2, 0), image.width - side)
    y = min(max((top + bottom - side) // 2, 0), image.height - side)
    return image.crop((x, y, x + side, y + side))


DATASETS.add("affectnet", Dataset(CARD, load_affectnet))
stream.LISTS["affectnet"] = list_affectnet
