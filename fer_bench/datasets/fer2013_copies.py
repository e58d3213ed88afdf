"""FER2013 from any of its usual copies: one split as arrays, in the order of fer2013.csv where the copy says it.

Accepted below the data set's folder: `fer2013.csv` or `icml_face_data.csv`; the image folders
`train/<class>/Training_N.*` and `test/<class>/{PublicTest,PrivateTest}_N.*`, in any case; either in one .zip, and the
first in a tar; parquet with the columns image and label (and row, ferplus_votes where known). FER+ needs
`fer2013new.csv` beside pictures whose rows are known, the ferplus_votes column, or the folders that its authors' script
makes (`ferplus_votes`). PublicTest is the validation split, PrivateTest the test split.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from fer_bench.datasets.fer2013_files import (
    CSVS,
    MOST_UNPACKED,
    TARS,
    Files,
    deeper,
    first,
    is_file_of,
    opened_table,
    opened_tar,
    opened_zip,
    walk,
    walk_zip,
)
from fer_bench.datasets.ferplus_votes import VOTES, Vote, authors_folder, authors_pictures, holds_authors, parse_votes
from fer_bench.datasets.lists import inside
from fer_bench.emotions import SEVEN, canonical
from fer_bench.errors import DataError
from fer_bench.faces import UnreadablePictureError, open_picture, stack
from fer_bench.zips import contents

USAGES = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
ROWS = 35_887
"""Of fer2013.csv, and of fer2013new.csv."""
LONGEST_LINE = 200_000
"""Characters of a line of a CSV that are read at once, more than `csv` takes in a cell; a picture's has 10,000."""
HUB_REPO = "Aaryan333/fer2013_train_publicTest_privateTest"
"""The copy on the Hugging Face Hub whose three splits are the official ones."""
HUB_SPLITS = {"train": "train", "validation": "publicTest", "test": "privateTest"}
WHERE = (
    "put fer2013.csv, icml_face_data.csv, the image folders (train/happy/Training_1.jpg, test/happy/PublicTest_2.jpg), "
    "a .zip of one of these, or train/validation/test.parquet into a folder named fer2013 and point $FER_BENCH_DATA at "
    "the folder that holds it"
)


@dataclass(frozen=True)
class _Record:
    """One picture of a copy. `pixels` decodes it to uint8 (48, 48), or raises UnreadablePictureError, naming it."""

    id: str
    label: int
    row: int
    """Its row in fer2013.csv; -1 where the copy does not say."""
    votes: Sequence[int] | None
    """Ten counts in the order of `VOTES`, all zero where FER+ has no entry; None where the copy has no votes."""
    pixels: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Raw:
    """One split as read: uint8 (N, 48, 48), labels (N,), N ids, votes (N, 10) or None, a line per broken picture."""

    images: np.ndarray
    labels: np.ndarray
    ids: tuple[str, ...]
    votes: np.ndarray | None
    skipped: tuple[str, ...]


@functools.lru_cache(maxsize=3)
def read(root: Path | None, split: str) -> Raw:
    """One split of the copy in `root`, or of the Hub's where that is None; the last few are kept. Raises DataError."""
    if root is None:
        return _from_hub(split)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; {WHERE}.")
    for name in CSVS:
        if (root / name).is_file():
            opened = (root / name).open
            return _collect(_csv_records(root / name, opened, split, _votes_beside(root)), split, root / name)
    parquet = sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    if parquet:
        return _collect(_parquet_records(parquet, split, _votes_beside(root)), split, root)
    folders = {name: inside(root, name) for name in ("train", "test")}
    if all(folder is not None and folder.is_dir() for folder in folders.values()):
        files = walk(folders["train" if split == "train" else "test"])
        return _collect(_file_records(files, split, _votes_beside(root)), split, root)
    if authors_folder(root) is not None:
        raise NoLabelsError(_no_labels(root))
    if archive := first(root, "*.zip"):
        with opened_zip(archive) as opened:
            return _collect(_zip_records(opened, split, _votes_in(opened) or _votes_beside(root)), split, archive)
    if archive := first(root, *TARS):
        with opened_tar(archive) as (table, opened):
            return _collect(_csv_records(table, opened, split, _votes_beside(root)), split, archive)
    raise DataError(f"{root}: no FER2013 in this folder{deeper(root)}; {WHERE}.")


class NoLabelsError(DataError):
    """The copy is the one that FER+'s authors' script makes: FER+'s votes, and none of FER2013's labels."""


@functools.lru_cache(maxsize=3)
def read_voted(root: Path, split: str) -> Raw:
    """As `read`, for a copy that it raises NoLabelsError for: all labels are -1."""
    base = authors_folder(root)
    if base is not None:
        votes = _votes_beside(root) or _votes_beside(base)
        return _collect(_voted_records(walk(base), split, votes, base), split, base)
    archive = first(root, "*.zip")
    with opened_zip(archive) as opened:
        votes = _votes_in(opened) or _votes_beside(root)
        return _collect(_voted_records(walk_zip(opened), split, votes, archive), split, archive)


def _no_labels(source: Path | str) -> str:
    return (
        f"{source}: the folders of FER+'s authors (FER2013Train) lack FER2013's labels; put fer2013.csv, which they "
        "are made of, and fer2013new.csv beside them."
    )


def _collect(records: Iterable[_Record], split: str, source: Path | str) -> Raw:
    """Decode all records and put them into the order of fer2013.csv; broken pictures are left out and named."""
    kept: list[tuple[_Record, np.ndarray]] = []
    skipped: list[str] = []
    for record in records:
        try:
            kept.append((record, record.pixels()))
        except UnreadablePictureError as error:
            skipped.append(str(error))
            print(f"skipped {error}", file=sys.stderr)
    if not kept and not skipped:
        raise DataError(f"{source}: it has no pictures of the {split} split ({USAGES[split]}); {WHERE}.")
    kept.sort(key=lambda item: (item[0].row, item[0].id))
    ids = tuple(record.id for record, _ in kept)
    twice = next((first for first, second in itertools.pairwise(ids) if first == second), None)
    if twice is not None:
        raise DataError(f"{source}: {twice} stands in it twice; this is not a copy of FER2013, get it again.")
    images = np.stack([pixels for _, pixels in kept]) if kept else np.zeros((0, 48, 48), dtype=np.uint8)
    labels = np.array([record.label for record, _ in kept], dtype=np.int64)
    votes = None
    if all(record.votes is not None for record, _ in kept):
        votes = np.array([record.votes for record, _ in kept], dtype=np.int64).reshape(-1, 10)
    return Raw(images, labels, ids, votes, tuple(skipped))


def _votes_of(row: int, votes: dict[int, Vote] | None) -> list[int] | None:
    """The counts of a row of fer2013.csv; None where there are no votes or the row is not known."""
    if votes is None or row < 0:
        return None
    return votes[row].counts if row in votes else [0] * len(VOTES)


def _csv_records(
    path: Path | str, opened: Callable[..., IO[str]], split: str, votes: dict[int, Vote] | None
) -> Iterator[_Record]:
    """opened: opens what `path` names, as `Path.open` does."""
    try:
        with opened(newline="", encoding="utf-8-sig") as file:
            # A line without an end comes in parts, which are no rows: it is never held whole.
            reader = csv.reader(iter(functools.partial(file.readline, LONGEST_LINE), ""))
            header = [column.strip().lower() for column in next(reader, [])]
            if not {"emotion", "pixels", "usage"} <= set(header):
                found = ", ".join(header)[:60] or "none"  # without a header, these are a picture's 2,304 pixels
                raise DataError(f"{path}, line 1: the columns must be emotion, pixels and Usage, not {found}.")
            emotion, pixels, usage = (header.index(name) for name in ("emotion", "pixels", "usage"))
            for row, line in enumerate(line for line in reader if any(cell.strip() for cell in line)):
                where = f"{path}, line {reader.line_num}"
                if len(line) != len(header) or line[usage].strip() not in USAGES.values():
                    raise DataError(f"{where}: this is no row of FER2013 (emotion, pixels, Usage); get the file again.")
                if line[usage].strip() != USAGES[split]:
                    continue
                if line[emotion].strip() not in set("0123456"):
                    raise DataError(f"{where}: the emotion must be 0 to 6, not {line[emotion]!r}; get the file again.")
                read = functools.partial(_from_text, line[pixels], where)
                yield _Record(f"{USAGES[split]}_{row}", int(line[emotion]), row, _votes_of(row, votes), read)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: this is not a readable UTF-8 CSV file ({error}); get it again.") from None


_VALUES = {str(value): value for value in range(256)}


def _from_text(text: str, where: str) -> np.ndarray:
    try:
        values = bytes(map(_VALUES.__getitem__, text.split()))
    except KeyError as error:
        raise UnreadablePictureError(f"{where}: the pixels must be 0 to 255, not {error.args[0][:20]!r}.") from None
    if len(values) != 48 * 48:
        raise UnreadablePictureError(f"{where}: {len(values):,} pixels where there must be 2,304.")
    return np.frombuffer(values, dtype=np.uint8).reshape(48, 48)


def _from_encoded(read: Callable[[], bytes], where: str) -> np.ndarray:
    try:
        content = read()
    except Exception as error:  # a broken or locked .zip member raises one of many kinds
        raise UnreadablePictureError(f"{where}: this cannot be read ({error}).") from None
    return stack([open_picture(content, where).convert("L")], 48)[0]


def _parquet_records(paths: list[Path], split: str, votes: dict[int, Vote] | None) -> Iterator[_Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = {split, USAGES[split].lower(), HUB_SPLITS[split].lower()} | ({"val"} if split == "validation" else set())
    chosen = [path for path in paths if re.split(r"[-.]", path.name)[0].lower() in names]
    if not chosen:
        raise DataError(f"{paths[0].parent}: no parquet file of the {split} split; its name must start with {split}.")
    count = 0
    for path in chosen:
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path}: this is not a readable parquet file ({reason}); get it again.") from None
        if not {"image", "label"} <= set(table.column_names):
            raise DataError(f"{path}: the columns must be image and label, not {', '.join(table.column_names)}.")
        numbers = _label_numbers(_class_names(table.schema), path)
        for index, record in enumerate(table.to_pylist()):
            where = f"{path}, row {index}"
            label, row, counts = record["label"], record.get("row", -1), record.get("ferplus_votes")
            if not isinstance(label, int) or not 0 <= label < len(numbers):
                raise DataError(f"{where}: the label must be 0 to 6, not {label!r}; get the file again.")
            if not isinstance(row, int):
                raise DataError(f"{where}: the row must be a whole number, not {row!r}; get the file again.")
            if counts is None:
                counts = _votes_of(row, votes)
            elif len(counts) != len(VOTES):
                raise DataError(f"{where}: ferplus_votes must be ten counts, not {len(counts)}; get the file again.")
            name = f"{USAGES[split]}_{count:05d}" if row < 0 else f"{USAGES[split]}_{row}"
            read = functools.partial(_from_encoded, functools.partial(_encoded, record["image"]), where)
            yield _Record(name, numbers[label], row, counts, read)
            count += 1


def _encoded(image: dict | bytes | None) -> bytes:
    """The encoded picture in a cell of the column image, which `datasets` writes as {bytes, path}."""
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        raise ValueError("the cell has no picture in it")
    return content


def _class_names(schema: object) -> list[str] | None:
    """The names that `datasets` stored for the column label; None where it stored none."""
    try:
        return json.loads(schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None


def _label_numbers(names: Sequence[str] | None, source: Path | str) -> list[int]:
    """Stored label -> FER2013's label. A copy made from image folders may number its classes by the alphabet."""
    if names is None or list(names) == list("0123456"):
        return list(range(len(SEVEN)))
    try:
        return [SEVEN.index(canonical(name)) for name in names]
    except ValueError:
        raise DataError(f"{source}: its classes must be the seven emotions, not {', '.join(names)}.") from None


_FILE = re.compile(r"(?:^|/)(Training|PublicTest|PrivateTest)_(\d+)\.(?:jpe?g|png|webp|bmp)$", re.IGNORECASE)


def _file_records(files: Files, split: str, votes: dict[int, Vote] | None) -> list[_Record]:
    """files: (name, function that reads it) of everything in the copy."""
    found: list[tuple[int, int, str, Callable[[], bytes]]] = []
    for name, read in files:
        parts = name.replace("\\", "/")
        match = _FILE.search(parts)
        if match is None or match[1].lower() != USAGES[split].lower():
            continue
        try:
            label = SEVEN.index(canonical(parts.split("/")[-2]))
        except (ValueError, IndexError):
            raise DataError(f"{name}: it does not lie in a folder named after one of the seven emotions.") from None
        found.append((int(match[2]), label, name, read))
    # Some copies number their pictures by row, others at random and far beyond the last row.
    by_row = all(number < ROWS for number, *_ in found)
    # A number drawn at random may come up in two classes: these two names get their class, all others stay as they are.
    classes = Counter(number for number, _ in {(number, label) for number, label, *_ in found})
    records = []
    for number, label, name, read in sorted(found, key=lambda item: (item[0], item[2])):
        row = number if by_row else -1
        decode = functools.partial(_from_encoded, read, name)
        its_class = f"{SEVEN[label]}_" if not by_row and classes[number] > 1 else ""
        records.append(_Record(f"{USAGES[split]}_{its_class}{number}", label, row, _votes_of(row, votes), decode))
    return records


def _voted_records(files: Files, split: str, votes: dict[int, Vote] | None, source: Path) -> Iterator[_Record]:
    """The pictures of a copy that FER+'s authors' script made."""
    for row, vote, name, read in authors_pictures(files, USAGES[split], votes, source):
        decode = functools.partial(_from_encoded, read, name) if read else functools.partial(_not_there, name)
        known = row if row >= 0 else Path(vote.name).stem
        yield _Record(f"{USAGES[split]}_{known}", -1, row, vote.counts, decode)


def _not_there(name: str) -> np.ndarray:
    raise UnreadablePictureError(f"{name}: there is no such file.")


def _zip_records(archive: zipfile.ZipFile, split: str, votes: dict[int, Vote] | None) -> Iterable[_Record]:
    """The pictures of an archive, or the rows of the CSV in it where it has none."""
    names = archive.namelist()
    table = next((name for base in CSVS for name in names if is_file_of(name, base)), None)
    pictures = any(map(_FILE.search, names))
    if table is None and not pictures and holds_authors(names):
        raise NoLabelsError(_no_labels(archive.filename))
    if table is None or pictures:
        return _file_records(walk_zip(archive), split, votes)
    opened = functools.partial(opened_table, archive, table)
    return _csv_records(f"{archive.filename}/{table}", opened, split, votes)


def _votes_beside(folder: Path) -> dict[int, Vote] | None:
    path = folder / "fer2013new.csv"
    return parse_votes(path.read_bytes(), str(path)) if path.is_file() else None


def _votes_in(archive: zipfile.ZipFile) -> dict[int, Vote] | None:
    info = next((info for info in archive.infolist() if is_file_of(info.filename, "fer2013new.csv")), None)
    if info is None:
        return None
    return parse_votes(contents(archive, info, MOST_UNPACKED), f"{archive.filename}/{info.filename}")


def _from_hub(split: str) -> Raw:
    """Download through `datasets`, which keeps a copy. DataError with the mend where the Hub cannot be reached."""
    import datasets
    from huggingface_hub import constants, get_session

    offline = datasets.config.HF_HUB_OFFLINE
    try:
        try:
            get_session().head(constants.ENDPOINT, timeout=3)
        except Exception:  # a copy downloaded earlier will do; without one this fails at once instead of retrying
            datasets.config.HF_HUB_OFFLINE = True
        table = datasets.load_dataset(HUB_REPO, split=HUB_SPLITS[split])
        numbers = _label_numbers(getattr(table.features["label"], "names", None), HUB_REPO)
        records = [
            _Record(
                id=f"{USAGES[split]}_{index:05d}",
                label=numbers[record["label"]],
                row=-1,
                votes=None,
                pixels=functools.partial(
                    _from_encoded, functools.partial(_encoded, record["image"]), f"{HUB_REPO}, {split} row {index}"
                ),
            )
            for index, record in enumerate(table.cast_column("image", datasets.Image(decode=False)))
        ]
    except DataError:
        raise
    except Exception as error:  # every library below raises its own kinds when there is no network
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise DataError(f"FER2013 is not here and could not be had from the Hub ({reason}); {WHERE}.") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    return _collect(records, split, HUB_REPO)
