"""FER+'s votes: fer2013new.csv, and the folders that its authors' own script makes of it and of fer2013.csv.

FER2013Train, FER2013Valid and FER2013Test hold the pictures under the names that fer2013new.csv gives them
(fer0028638.png) and a label.csv of the same votes. The numbers in these names are no rows of fer2013.csv: where
fer2013new.csv leaves out a picture, some go on and some skip one. FER2013's own labels are not in these folders.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fer_bench.datasets.fer2013_files import Files
from fer_bench.datasets.lists import inside
from fer_bench.errors import DataError

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
"""FER2013's name of a split -> the authors' folder of it."""
WHOLE = 0.99
"""Least fraction of the pictures that the votes name which must be there."""
_PICTURE = re.compile(r"\.(?:png|jpe?g|webp|bmp)$", re.IGNORECASE)


@dataclass(frozen=True)
class Vote:
    """A line of fer2013new.csv or label.csv."""

    counts: list[int]
    """Ten, in the order of `VOTES`."""
    name: str = ""
    """The picture's; "" where FER+ leaves it out."""
    usage: str = ""
    """Training, PublicTest or PrivateTest; "" in a label.csv, whose folder says it."""


def parse_votes(content: bytes, where: str) -> dict[int, Vote]:
    """Row of fer2013.csv -> its line in fer2013new.csv, which is row-aligned with it. Raises DataError, naming it."""
    lines = _lines(content, where)
    header = [column.lower() for column in next(lines, (0, []))[1]]
    if header[2:12] != [name.lower() for name in VOTES]:
        raise DataError(f"{where}, line 1: the columns must be Usage, Image name, {', '.join(VOTES)}.")
    return {
        row: Vote(_counts(cells[2:12], f"{where}, line {number}"), cells[1], cells[0])
        for row, (number, cells) in enumerate(lines)
    }


def parse_labels(content: bytes, where: str) -> list[Vote]:
    """The lines of a label.csv: a picture's name, in some versions the box of its face, ten counts; no header."""
    lines = _lines(content, where)
    return [Vote(_counts(cells[1:][-len(VOTES) :], f"{where}, line {number}"), cells[0]) for number, cells in lines]


def _lines(content: bytes, where: str) -> Iterator[tuple[int, list[str]]]:
    """(number, cells without blanks around them) of each line of a CSV file that is not empty."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        for line in reader:
            cells = [cell.strip() for cell in line]
            if any(cells):
                yield reader.line_num, cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: this is not a readable UTF-8 CSV file ({error}); get it again.") from None


def _counts(cells: list[str], where: str) -> list[int]:
    if len(cells) != len(VOTES) or not all(cell.isdecimal() for cell in cells):
        raise DataError(f"{where}: ten vote counts must follow the image name; get the file again.")
    return [int(cell) for cell in cells]


def holds_authors(names: Iterable[str]) -> bool:
    """Whether one of these files lies in a folder of FER+'s authors."""
    return any(_place(name)[0] in map(str.lower, FOLDERS.values()) for name in names)


def authors_folder(root: Path) -> Path | None:
    """The folder in which those of FER+'s authors lie: this one, or `data` in it, as in their repository; or None."""
    found = inside(root, *(f"{above}{name}" for above in ("", "data/") for name in FOLDERS.values()))
    return None if found is None else found.parent


def _place(name: str) -> tuple[str, str]:
    """(the folder that a file lies in, in small letters; its own name)."""
    parts = name.replace("\\", "/").split("/")
    return (parts[-2].lower() if len(parts) > 1 else ""), parts[-1]


def authors_pictures(
    files: Files, usage: str, votes: dict[int, Vote] | None, source: Path | str
) -> Iterator[tuple[int, Vote, str, Callable[[], bytes] | None]]:
    """(row, vote, file, function that reads it) of each picture that FER+ has of a split.

    files: everything in the copy. usage: a key of `FOLDERS`. votes: fer2013new.csv;
    without it, which gives the rows, label.csv is read and each row is -1. The function is None where the file is not
    there. Raises DataError where there is no list of votes, or not `WHOLE` of the pictures in it.
    """
    folder, listing = f"{source}/{FOLDERS[usage]}", None
    there: dict[str, tuple[str, Callable[[], bytes]]] = {}
    for name, read in files:
        its_folder, own = _place(name)
        if its_folder != FOLDERS[usage].lower() or own.startswith("."):
            continue
        folder = name[: -len(own) - 1]
        if own.lower() == "label.csv":
            listing = (name, read)
        elif _PICTURE.search(own):
            there[_stem(own)] = (name, read)
    if votes is not None:
        named = f"fer2013new.csv's {usage} rows"
        listed = [(row, vote) for row, vote in votes.items() if vote.name and vote.usage == usage]
    elif listing is not None:
        named = "its label.csv"
        listed = [(-1, vote) for vote in parse_labels(listing[1](), listing[0])]
    else:
        raise DataError(f"{folder} has no label.csv: put fer2013new.csv from FER+'s authors into {source}.")
    found = sum(_stem(vote.name) in there for _, vote in listed)
    if not listed or found < WHOLE * len(listed):
        raise DataError(
            f"{folder}: {found:,} of the {len(listed):,} pictures named in {named} are there; make them with the FER+ "
            "authors' generate_training_data.py out of fer2013.csv and fer2013new.csv."
        )
    for row, vote in listed:
        name, read = there.get(_stem(vote.name), (f"{folder}/{vote.name}", None))
        yield row, vote, name, read


def _stem(name: str) -> str:
    return _PICTURE.sub("", name).lower()
