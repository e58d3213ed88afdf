"""Where the files of a copy of FER2013 lie: in a folder, in a .zip, or in the tar of the original competition."""

from __future__ import annotations

import contextlib
import functools
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from fer_bench.datasets.lists import inside
from fer_bench.errors import DataError
from fer_bench.zips import check_sizes, contents

CSVS = ("fer2013.csv", "icml_face_data.csv")
TARS = ("*.tar.gz", "*.tgz", "*.tar")
MOST_UNPACKED = 8_000_000
"""Bytes of a picture or a list of votes in a .zip: pictures of FER2013 have 2 KB, and its longest list 1 MB or two."""
MOST_TABLE = 2_000_000_000
"""Bytes of fer2013.csv in an archive; it has 300 MB, and is read line by line."""
Files = Iterable[tuple[str, Callable[[], bytes]]]
"""(name, function that reads it) of everything in a copy."""


def walk(folder: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Everything below a folder."""
    for path in folder.rglob("*"):
        yield path.as_posix(), path.read_bytes


def walk_zip(archive: zipfile.ZipFile) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Everything in a .zip; the functions raise BadZipFile for what unpacks to more than MOST_UNPACKED."""
    for info in archive.infolist():
        yield f"{archive.filename}/{info.filename}", functools.partial(contents, archive, info, MOST_UNPACKED)


def opened_table(archive: zipfile.ZipFile, name: str, **how: str) -> IO[str]:
    """The CSV of this name in a .zip, as `Path.open` gives it; BadZipFile where it unpacks to more than MOST_TABLE."""
    check_sizes([archive.getinfo(name)], MOST_TABLE)
    return io.TextIOWrapper(archive.open(name), **how)


def first(root: Path, *patterns: str) -> Path | None:
    """The first file in a folder that one of these patterns fits, by name; None where none does."""
    return next((path for pattern in patterns for path in sorted(root.glob(pattern))), None)


def is_file_of(name: str, base: str) -> bool:
    """Whether an archive's member is called so, in whatever folder; what a Mac puts beside it is called "._" and so."""
    return name.rsplit("/", 1)[-1] == base


@contextlib.contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A .zip to read; whatever is wrong with it, DataError names it."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # the last where it is locked
        raise DataError(f"{path}: this is not a readable .zip ({error}); get it again.") from None


@contextlib.contextmanager
def opened_tar(path: Path) -> Iterator[tuple[str, Callable[..., IO[str]]]]:
    """(name, function that opens it as `Path.open` does) of the CSV in a tar; DataError where there is none."""
    try:
        with tarfile.open(path) as archive:
            members = [member for member in archive if member.isfile()]
            table = next((one for base in CSVS for one in members if is_file_of(one.name, base)), None)
            if table is None:
                raise DataError(f"{path}: there is no {' or '.join(CSVS)} in it; unpack it here if it is FER2013.")
            yield f"{path}/{table.name}", lambda **how: io.TextIOWrapper(archive.extractfile(table), **how)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        reason = " ".join(str(error).split())  # tarfile's has a line for each kind of compression
        raise DataError(f"{path}: this is not a readable tar ({reason}); get it again.") from None


def deeper(root: Path) -> str:
    """Where a copy lies in a folder further below, which is never entered by itself, with the mend; or ""."""
    for below in sorted(path for depth in ("*", "*/*") for path in root.glob(depth) if path.is_dir()):
        folders = (inside(below, "train"), inside(below, "test"))
        if any((below / name).is_file() for name in CSVS) or all(folders) or first(below, "*.parquet"):
            return f" itself, but there is in {below}: move what is in there up into it"
    return ""
