"""A tiny FER2013 with FER+ votes, written in every layout in which copies of it are found."""

from __future__ import annotations

import functools
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.datasets import FaceSet, fer2013_copies, load_dataset
from fer_bench.emotions import SEVEN
from fer_bench.errors import DataError

SPLITS = {"train": range(0, 110), "validation": range(110, 117), "test": range(117, 126)}
"""Rows of the tiny fer2013.csv; 110 so that one broken picture is less than one in a hundred."""
USAGES = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
PIXELS = np.random.default_rng(0).integers(0, 256, (126, 48, 48), dtype=np.uint8)
LABELS = [(row * 3) % 7 for row in range(126)]


def votes_of(row: int) -> list[int]:
    """Ten votes: mostly for the picture's own label; every seventh row for contempt; rows 3, 13, 23... are a tie."""
    votes = [0] * 10
    own = fer2013_copies.VOTES.index(SEVEN[LABELS[row]])
    votes[fer2013_copies.VOTES.index("contempt") if row % 7 == 6 else own] = 5 if row % 10 == 3 else 8
    votes[fer2013_copies.VOTES.index("unknown")] = 5 if row % 10 == 3 else 2
    return votes


MAJORITY = {split: [row for row in rows if row % 10 != 3] for split, rows in SPLITS.items()}
CLEAN = {split: [row for row in rows if row % 7 != 6] for split, rows in MAJORITY.items()}


@functools.cache
def encode(row: int, suffix: str = "png") -> bytes:
    """A picture's file, lossless where the suffix allows."""
    file = io.BytesIO()
    form, options = {"jpg": ("JPEG", {}), "webp": ("WEBP", {"lossless": True})}.get(suffix, (suffix.upper(), {}))
    Image.fromarray(PIXELS[row]).save(file, form, **options)
    return file.getvalue()


@functools.cache
def numbers(row: int) -> str:
    """A picture as fer2013.csv writes it."""
    return " ".join(map(str, PIXELS[row].ravel()))


def usage_of(row: int) -> str:
    """Training, PublicTest or PrivateTest."""
    return USAGES[next(split for split, rows in SPLITS.items() if row in rows)]


# One writer per layout. Each writes the whole tiny copy below a folder.


def csv_lines(columns: tuple[str, ...] = ("emotion", "pixels", "Usage")) -> list[str]:
    """The lines of fer2013.csv, header first."""
    lines = [",".join(columns)]
    for row in range(126):
        cells = {"emotion": str(LABELS[row]), "pixels": numbers(row), "usage": usage_of(row)}
        lines.append(",".join(cells[column.strip().lower()] for column in columns))
    return lines


def write_csv(root: Path) -> None:
    """fer2013.csv, as from Kaggle's competition."""
    (root / "fer2013.csv").write_text("\n".join(csv_lines()) + "\n")


def write_windows_csv(root: Path) -> None:
    """fer2013.csv saved on Windows: byte-order mark, CR LF, an empty line in the middle and at the end."""
    lines = csv_lines()
    lines.insert(50, "")
    (root / "fer2013.csv").write_bytes(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8-sig"))


def write_icml(root: Path) -> None:
    """icml_face_data.csv, whose columns have leading spaces and another order."""
    (root / "icml_face_data.csv").write_text("\n".join(csv_lines(("emotion", " Usage", " pixels"))) + "\n")


def paths(suffix: Callable[[int], str] = lambda row: "png") -> dict[str, int]:
    """Path in the image-folder layout -> row."""
    folder = {row: "train" if row in SPLITS["train"] else "test" for row in range(126)}
    return {f"{folder[row]}/{CLASSES[LABELS[row]]}/{usage_of(row)}_{row}.{suffix(row)}": row for row in range(126)}


def write_folders(root: Path) -> None:
    """The image folders, with strangers among the pictures."""
    for name, row in paths().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(row))
    (root / "train" / "happy" / ".DS_Store").write_bytes(b"\0")
    (root / "train" / "happy" / "._Training_1.png").write_bytes(b"\0")


def write_mixed_folders(root: Path) -> None:
    """The image folders, as PNG, WebP and BMP."""
    kinds = {0: "webp", 1: "bmp"}
    for name, row in paths(lambda row: kinds.get(row % 12, "png")).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(row, path.suffix[1:]))


def zip_writer(top: str) -> Callable[[Path], None]:
    """A writer of the image folders in one .zip, below the folder `top` inside it, packed on a Mac."""

    def write(root: Path) -> None:
        with zipfile.ZipFile(root / "archive.zip", "w") as archive:
            for name, row in paths().items():
                archive.writestr(top + name, encode(row))
                archive.writestr(f"__MACOSX/{top}" + name.replace("/T", "/._T").replace("/P", "/._P"), b"\0")

    return write


def write_capitals(root: Path) -> None:
    """The image folders, Train and TEST."""
    write_folders(root)
    for name, other in (("train", "Train"), ("test", "TEST")):
        (root / name).rename(root / f"{name}-")
        (root / f"{name}-").rename(root / other)


def write_zipped_csv(root: Path) -> None:
    """Kaggle's archive.zip of fer2013.csv, packed on a Mac."""
    write_csv(root)
    with zipfile.ZipFile(root / "archive.zip", "w") as archive:
        archive.writestr("__MACOSX/fer2013/._fer2013.csv", b"\0")
        archive.write(root / "fer2013.csv", "fer2013/fer2013.csv")
    (root / "fer2013.csv").unlink()


def write_tar(root: Path) -> None:
    """fer2013.tar.gz, as the competition gave it out: a folder with the CSV and a text in it."""
    write_csv(root)
    (root / "README").write_text("hello")
    with tarfile.open(root / "fer2013.tar.gz", "w:gz") as archive:
        for name in ("README", "fer2013.csv"):
            archive.add(root / name, f"fer2013/{name}")
            (root / name).unlink()


def write_parquet(
    path: Path,
    rows: list[int] | range,
    known: bool = True,
    votes: bool = True,
    classes: tuple[str, ...] | None = None,
    cells: dict[int, object] | None = None,
) -> None:
    """One parquet file as `datasets` writes it. classes: the stored order of the class names; cells: other images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    order = classes or CLASSES
    images = [(cells or {}).get(row, {"bytes": encode(row), "path": None}) for row in rows]
    columns: dict[str, list] = {"image": images, "label": [order.index(CLASSES[LABELS[row]]) for row in rows]}
    if known:
        columns["row"] = list(rows)
    if votes:
        columns["ferplus_votes"] = [votes_of(row) for row in rows]
    table = pa.table(columns)
    if classes:
        features = {"info": {"features": {"label": {"names": list(classes), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def parquet_writer(names: dict[str, str], **options: object) -> Callable[[Path], None]:
    """A writer of one parquet file per split under these names."""

    def write(root: Path) -> None:
        for split, name in names.items():
            write_parquet(root / name, SPLITS[split], **options)

    return write


def write_parquet_shards(root: Path) -> None:
    """The training split in two files, shuffled, rows known."""
    rows = np.random.default_rng(1).permutation(110).tolist()
    write_parquet(root / "train-00000-of-00002.parquet", rows[:60])
    write_parquet(root / "train-00001-of-00002.parquet", rows[60:])
    parquet_writer({"validation": "val-00000-of-00001.parquet", "test": "test-00000-of-00001.parquet"})(root)


PLAIN = {"train": "train.parquet", "validation": "validation.parquet", "test": "test.parquet"}
HUB = {
    "train": "data/train-00000-of-00001.parquet",
    "validation": "data/publicTest-00000-of-00001.parquet",
    "test": "data/privateTest-00000-of-00001.parquet",
}
ALPHABETIC = tuple(sorted(CLASSES))

LAYOUTS: dict[str, Callable[[Path], None]] = {
    "csv": write_csv,
    "windows csv": write_windows_csv,
    "icml": write_icml,
    "folders": write_folders,
    "mixed folders": write_mixed_folders,
    "folders in capitals": write_capitals,
    "zip of the csv": write_zipped_csv,
    "tar": write_tar,
    "zip": zip_writer(""),
    "zip with a top folder": zip_writer("fer2013/images/"),
    "parquet": parquet_writer(PLAIN),
    "parquet shards": write_parquet_shards,
    "parquet without rows": parquet_writer(PLAIN, known=False, votes=False),
    "parquet without votes": parquet_writer(PLAIN, votes=False),
    "parquet votes without rows": parquet_writer(PLAIN, known=False),
    "hub files": parquet_writer(HUB, known=False, votes=False),
    "hub files by the alphabet": parquet_writer(HUB, known=False, votes=False, classes=ALPHABETIC),
}


def write_votes(root: Path, change: Callable[[list[list[str]]], None] = lambda lines: None, end: str = "\n") -> None:
    """fer2013new.csv, after `change` has had its way with the lines."""
    lines = [["Usage", "Image name", *fer2013_copies.VOTES]]
    lines += [[usage_of(row), f"fer{row:07d}.png", *map(str, votes_of(row))] for row in range(126)]
    change(lines)
    (root / "fer2013new.csv").write_bytes((end.join(map(",".join, lines)) + end).encode("utf-8-sig"))


def expected(split: str) -> FaceSet:
    """What every layout must give."""
    rows = SPLITS[split]
    labels = np.array([LABELS[row] for row in rows])
    return FaceSet("fer2013", split, SEVEN, PIXELS[rows.start : rows.stop], labels, tuple(map(str, rows)))


def refusal(root: Path, split: str = "train", name: str = "fer2013") -> str:
    """The text with which a copy is refused; one line."""
    with pytest.raises(DataError) as caught:
        load_dataset(name, split, root)
    text = str(caught.value)
    assert "\n" not in text
    return text


def broken_folders(root: Path) -> str:
    """Image folders of which Training_4 is text; returns how it must be named."""
    write_folders(root)
    path = root / "train" / CLASSES[LABELS[4]] / "Training_4.png"
    path.write_text("hello")
    return str(path)
