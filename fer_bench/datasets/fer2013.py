"""FER2013 (Goodfellow et al., 2013) and its relabelling FER+ (Barsoum et al., 2016), from any of their usual copies.

Accepted below the data set's folder: `fer2013.csv` or `icml_face_data.csv`; the image folders
`train/<class>/Training_N.*` and `test/<class>/{PublicTest,PrivateTest}_N.*`, as files or in one .zip; parquet with
the columns image and label (and row, ferplus_votes where known). FER+ needs `fer2013new.csv` beside the pictures, or
the ferplus_votes column. PublicTest is the validation split, PrivateTest the test split.
"""

from __future__ import annotations

import csv
import functools
import io
import os
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_bench.cards import DatasetCard
from fer_bench.datasets.base import DATASETS, Dataset, FaceSet, check_allowed
from fer_bench.emotions import EIGHT, SEVEN, canonical
from fer_bench.errors import DataError
from fer_bench.faces import UnreadablePictureError, open_picture, stack

USAGES = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
COUNTS = {"train": 28_709, "validation": 3_589, "test": 3_589}
FERPLUS_COUNTS = {"train": 25_060, "validation": 3_199, "test": 3_153}
VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
ROWS = sum(COUNTS.values())
HUB_REPO = "Aaryan333/fer2013_train_publicTest_privateTest"
"""The copy on the Hugging Face Hub whose three splits are the official ones."""
HUB_SPLITS = {"train": "train", "validation": "publicTest", "test": "privateTest"}
WHERE = (
    "put fer2013.csv, icml_face_data.csv, the image folders, a .zip of them, or train/validation/test.parquet into "
    "a folder named fer2013 and point $FER_BENCH_DATA at the folder that holds it"
)

CARD = DatasetCard(
    name="fer2013",
    title="FER2013",
    emotions=SEVEN,
    counts=tuple(COUNTS.items()),
    licence="research use; the pictures come from web search",
    source="Kaggle, Challenges in Representation Learning: Facial Expression Recognition (2013)",
    paper="Goodfellow et al., Challenges in Representation Learning, ICONIP 2013",
)
FERPLUS_CARD = DatasetCard(
    name="ferplus",
    title="FER+ (majority rule)",
    emotions=EIGHT,
    counts=tuple(FERPLUS_COUNTS.items()),
    licence="MIT (the votes); the pictures are FER2013's",
    source="fer2013new.csv from the FER+ authors, beside a copy of FER2013",
    paper="Barsoum et al., arXiv 1608.01041, 2016",
)


@dataclass(frozen=True)
class _Raw:
    """One split as read: uint8 (N, 48, 48), labels (N,), rows of fer2013.csv (N,; -1 unknown), votes (N, 10) or None."""

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    ids: tuple[str, ...]
    votes: np.ndarray | None
    skipped: tuple[str, ...]


def load_fer2013(root: Path | None, split: str) -> FaceSet:
    """One split of FER2013: uint8 (N, 48, 48), seven emotions.

    root: the folder of the copy; None downloads it from the Hub. Raises DataError where it is missing or incomplete.
    """
    check_allowed(split)
    raw = _read(root, split)
    notes = _check_count(len(raw.images) + len(raw.skipped), COUNTS[split], split, root)
    return FaceSet("fer2013", split, SEVEN, raw.images, raw.labels, raw.ids, raw.skipped, notes)


def load_ferplus(root: Path | None, split: str) -> FaceSet:
    """One split of FER+ under the majority rule: uint8 (N, 48, 48), eight emotions. Raises DataError as FER2013's."""
    check_allowed(split)
    raw = _read(root, split)
    if raw.votes is None:
        raise DataError(f"{root or 'the Hub copy'} has no FER+ votes: put fer2013new.csv beside the FER2013 pictures.")
    kept, labels = majority(raw.votes)
    expected = FERPLUS_COUNTS[split]
    if not raw.skipped and kept.sum() != expected:
        raise DataError(
            f"{root}: the FER+ majority rule keeps {kept.sum():,} {split} pictures where it must keep {expected:,}; "
            "the votes and the pictures do not belong together, get fer2013new.csv and FER2013 again."
        )
    index = np.flatnonzero(kept)
    ids = tuple(raw.ids[i] for i in index)
    return FaceSet("ferplus", split, EIGHT, raw.images[index], labels[index], ids, raw.skipped)


def majority(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FER+'s majority rule: votes of 1 are dropped, then the top class must hold more than half of what is left.

    votes: int (N, 10) in the order of `VOTES`. Returns kept, bool (N,), and labels, int64 (N,), indices into EIGHT,
    meaningful where kept. (Barsoum et al., 2016; gives 25,060 / 3,199 / 3,153 pictures.)
    """
    counts = np.where(votes <= 1, 0, votes)
    top = counts.argmax(1)
    kept = (counts.max(1) * 2 > counts.sum(1)) & (top < 8)
    number = np.array([EIGHT.index(name) for name in VOTES[:8]] + [0, 0], dtype=np.int64)
    return kept, number[top]


def _check_count(found: int, official: int, split: str, root: Path | None) -> tuple[str, ...]:
    if found == official:
        return ()
    message = f"{root or HUB_REPO}: {found:,} of the {official:,} official {split} pictures"
    if found > official or found < 0.99 * official:
        raise DataError(f"{message}; this is not a whole copy of FER2013, get it again.")
    return (f"{split}: {found:,} of the {official:,} official pictures; this copy lacks {official - found:,}",)


@functools.lru_cache(maxsize=3)
def _read(root: Path | None, split: str) -> _Raw:
    if root is None:
        return _from_hub(split)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; {WHERE}.")
    for name in ("fer2013.csv", "icml_face_data.csv"):
        if (root / name).is_file():
            return _from_csv(root / name, split)
    archives = sorted(root.glob("*.zip"))
    parquet = sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    if parquet:
        return _from_parquet(parquet, split)
    if (root / "train").is_dir() and (root / "test").is_dir():
        return _from_files(_walk(root, split), _votes_beside(root), split, root)
    if archives:
        with zipfile.ZipFile(archives[0]) as archive:
            return _from_files(_walk_zip(archive, split), _votes_in(archive), split, archives[0])
    raise DataError(f"{root}: no FER2013 in this folder; {WHERE}.")


def _collect(records: Iterable[tuple[str, int, int, bytes | np.ndarray]], votes: dict[int, list[int]] | None) -> _Raw:
    """Records are (id, label, row, encoded picture or pixels); unreadable pictures are skipped and named."""
    kept: list[tuple[int, str, int, np.ndarray]] = []
    skipped: list[str] = []
    for name, label, row, picture in records:
        try:
            if isinstance(picture, np.ndarray):
                if picture.size != 48 * 48:
                    raise UnreadablePictureError(f"{name}: {picture.size} pixels where there must be 2,304.")
                pixels = picture.reshape(48, 48)
            else:
                pixels = stack([open_picture(picture, name).convert("L")], 48)[0]
        except UnreadablePictureError as error:
            skipped.append(str(error))
            continue
        kept.append((row, name, label, pixels))
    kept.sort(key=lambda item: (item[0], item[1]))
    rows = np.array([item[0] for item in kept], dtype=np.int64)
    table = None
    if votes is not None:
        table = np.array([votes.get(int(row), [0] * 10) for row in rows], dtype=np.int64).reshape(-1, 10)
    for line in skipped:
        print(f"skipped {line}", file=sys.stderr)
    images = np.stack([item[3] for item in kept]) if kept else np.zeros((0, 48, 48), np.uint8)
    labels = np.array([item[2] for item in kept], dtype=np.int64)
    return _Raw(images, labels, rows, tuple(item[1] for item in kept), table, tuple(skipped))


def _from_csv(path: Path, split: str) -> _Raw:
    def records() -> Iterator[tuple[str, int, int, np.ndarray]]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [column.strip().lower() for column in next(reader, [])]
            if not {"emotion", "pixels", "usage"} <= set(header):
                raise DataError(f"{path}, line 1: the columns must be emotion, pixels and Usage, not {header}.")
            emotion, pixels, usage = (header.index(name) for name in ("emotion", "pixels", "usage"))
            for row, line in enumerate(reader):
                if not line:
                    continue
                where = f"{path}, line {row + 2}"
                if len(line) != len(header) or line[usage].strip() not in USAGES.values():
                    raise DataError(f"{where}: this is no row of FER2013 (emotion, pixels, Usage); get the file again.")
                if line[usage].strip() != USAGES[split]:
                    continue
                if line[emotion].strip() not in set("0123456"):
                    raise DataError(f"{where}: the emotion must be 0 to 6, not {line[emotion]!r}.")
                try:
                    values = np.array(line[pixels].split(), dtype=np.int64)
                except ValueError:
                    values = np.array([-1])
                if values.min(initial=0) < 0 or values.max(initial=0) > 255:
                    values = np.array([-1])
                yield f"{USAGES[split]}_{row}", int(line[emotion]), row, values.astype(np.uint8)

    return _collect(records(), _votes_beside(path.parent))


def _from_parquet(paths: list[Path], split: str) -> _Raw:
    import pyarrow.parquet as pq

    names = {split, USAGES[split].lower(), HUB_SPLITS[split].lower(), {"validation": "val"}.get(split, split)}
    chosen = [path for path in paths if re.split(r"[-.]", path.name)[0].lower() in names]
    if not chosen:
        raise DataError(f"{paths[0].parent}: no parquet file of the {split} split; its name must start with {split}.")
    records: list[tuple[str, int, int, bytes]] = []
    votes: dict[int, list[int]] | None = {}
    for path in chosen:
        try:
            table = pq.read_table(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: this is not a readable parquet file ({error}).") from None
        if not {"image", "label"} <= set(table.column_names):
            raise DataError(f"{path}: the columns must be image and label, not {table.column_names}.")
        known = "row" in table.column_names
        if "ferplus_votes" not in table.column_names:
            votes = None
        for index, record in enumerate(table.to_pylist()):
            row = record["row"] if known else -1
            if not isinstance(record["label"], int) or not 0 <= record["label"] <= 6:
                raise DataError(f"{path}, row {index}: the label must be 0 to 6, not {record['label']!r}.")
            if votes is not None:
                votes[row] = record["ferplus_votes"]
            name = f"{USAGES[split]}_{row if known else f'{len(records):05d}'}"
            records.append((name, record["label"], row, record["image"]["bytes"] or b""))
    return _collect(records, votes)


_FILE = re.compile(r"(Training|PublicTest|PrivateTest)_(\d+)\.(jpe?g|png|webp|bmp)$", re.IGNORECASE)


def _from_files(files: Iterable[tuple[str, bytes]], votes: dict[int, list[int]] | None, split: str, root: Path) -> _Raw:
    def records() -> Iterator[tuple[str, int, int, bytes]]:
        for name, content in files:
            match = _FILE.search(name)
            if match is None or match[1].lower() != USAGES[split].lower():
                continue
            try:
                label = SEVEN.index(canonical(name.replace("\\", "/").split("/")[-2]))
            except (ValueError, IndexError):
                raise DataError(f"{root}: {name} does not lie in a folder named after one of the seven emotions.") from None
            number = int(match[2])
            yield f"{USAGES[split]}_{number}", label, number if number < ROWS else -1, content

    return _collect(records(), votes)


def _walk(root: Path, split: str) -> Iterator[tuple[str, bytes]]:
    for folder, _, names in sorted(os.walk(root / ("train" if split == "train" else "test"))):
        for name in sorted(names):
            yield f"{Path(folder).name}/{name}", (Path(folder) / name).read_bytes()


def _walk_zip(archive: zipfile.ZipFile, split: str) -> Iterator[tuple[str, bytes]]:
    wanted = USAGES[split].lower()
    for info in sorted(archive.infolist(), key=lambda item: item.filename):
        if wanted in info.filename.lower():
            try:
                yield info.filename, archive.read(info)
            except (zipfile.BadZipFile, OSError):
                yield info.filename, b""  # reported by name as unreadable


def _votes_beside(folder: Path) -> dict[int, list[int]] | None:
    path = folder / "fer2013new.csv"
    if not path.is_file():
        return None
    return _parse_votes(path.read_text(encoding="utf-8-sig"), path)


def _votes_in(archive: zipfile.ZipFile) -> dict[int, list[int]] | None:
    names = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "fer2013new.csv"]
    if not names:
        return None
    return _parse_votes(archive.read(names[0]).decode("utf-8-sig"), Path(str(archive.filename)))


def _parse_votes(text: str, path: Path) -> dict[int, list[int]]:
    """Row of fer2013.csv -> ten counts; the vote file is row-aligned with fer2013.csv."""
    reader = csv.reader(io.StringIO(text, newline=""))
    header = [column.strip().lower() for column in next(reader, [])]
    if header[2:12] != [name.lower() for name in VOTES]:
        raise DataError(f"{path}, line 1: fer2013new.csv must have Usage, Image name and {', '.join(VOTES)}.")
    votes: dict[int, list[int]] = {}
    for row, line in enumerate(reader):
        try:
            votes[row] = [int(value) for value in line[2:12]]
        except ValueError:
            votes[row] = []
        if len(votes[row]) != 10:
            raise DataError(f"{path}, line {row + 2}: ten vote counts must follow the image name.")
    return votes


def _from_hub(split: str) -> _Raw:
    """Download through `datasets`, which keeps a copy. DataError with the mend where the Hub cannot be reached."""
    import datasets
    from huggingface_hub import HfApi

    try:
        try:
            HfApi().dataset_info(HUB_REPO, timeout=10)
        except Exception:  # a copy downloaded earlier will do; without one this fails at once instead of retrying
            datasets.config.HF_HUB_OFFLINE = True
        table = datasets.load_dataset(HUB_REPO, split=HUB_SPLITS[split])
        table = table.cast_column("image", datasets.Image(decode=False))
        records = [
            (f"{USAGES[split]}_{index:05d}", int(record["label"]), -1, record["image"]["bytes"] or b"")
            for index, record in enumerate(table)
        ]
    except Exception as error:  # every library below raises its own kinds when there is no network
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise DataError(f"FER2013 is not here and could not be had from the Hub ({reason}); {WHERE}.") from None
    return _collect(records, None)


DATASETS.add("fer2013", Dataset(CARD, load_fer2013))
DATASETS.add("ferplus", Dataset(FERPLUS_CARD, load_ferplus))
