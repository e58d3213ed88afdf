"""Anyone's own pictures in a table: `csv:PATH`, the paths, emotions and, where known, splits and people of pictures."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from fer_bench.datasets.base import SPLITS, FaceSet, check_allowed
from fer_bench.datasets.numbers import numbers_told
from fer_bench.datasets.own import decode_files, no_table, place_of, split_named, tell_notes
from fer_bench.emotions import canonical
from fer_bench.errors import DataError
from fer_bench.files import label

_MORE_PATHS = ("filename", "file_path", "image_path", "img_path", "image_name")
COLUMNS = {
    "path": ("path", "filepath", "file", "image", "file_name", *_MORE_PATHS, "img", "pth"),
    "emotion": ("emotion", "label", "expression", "class"),
    "split": ("split", "usage", "set", "subset", "partition"),
    "subject": ("subject", "person", "identity", "subject_id", "person_id"),
}
"""What the columns of a CSV are called; of several, the first is read."""
SEPARATORS = ",;\t"
"""What stands between them: spreadsheets write a semicolon where the comma is the decimal point."""
SEP = re.compile(r'"?sep=(\\t|[^\w"\r\n])"?\1*[\r\n]*', re.IGNORECASE)
"""Excel's own line ahead of the header: what stands between the columns, repeated where it was saved again."""
OFFICIAL = (
    "FER2013's own file goes into a folder fer2013 that $FER_BENCH_DATA holds, and --track is fer2013 then; of another "
    "table of pixels save each row as a picture"
)
"""The mend for a table that holds the pixels."""
NAMELESS = "unnamed "
"""How the subject of a row that names none begins; its line follows."""


class Row(NamedTuple):
    """One line of the table. subject: whom the picture shows, "" where that is not told."""

    line: int
    picture: Path
    emotion: str
    split: str
    subject: str


def load_csv(path: Path, split: str) -> FaceSet:
    """A CSV with the columns path and emotion (COLUMNS), of cropped faces; paths are relative to the file.

    Commas, semicolons or tabs stand between them, or what a first line names (SEP). A column split (own.SPLIT_NAMES)
    chooses; without it, all rows are the test split. A column subject says whom each picture shows: intervals are over
    people then, and a note says so where some of them are in another split too. A note names the columns that were not
    read. Raises DataError, naming the file and line, for a file that is missing or cannot be read, missing columns, an
    unknown emotion or split, or a picture that is listed twice, in one split or in two, by whatever names and links.
    """
    check_allowed(split)
    unread: list[str] = []
    table = read_table(path, unread)
    rows = [row for row in table if row.split == split]
    if not rows:
        divide = f"or divide them: python -m fer_bench.datasets split {shlex.quote(label(path))} -o my.csv"
        raise DataError(f"{path}: no rows of the {split} split; mark them by {split} in a column split, {divide}")
    subjects = [row.subject or f"{NAMELESS}{row.line}" for row in rows] if any(row.subject for row in rows) else None
    notes = (f"columns of the CSV that were not read: {', '.join(unread)}",) if unread else ()
    notes += _about_people(rows, table, split)
    tell_notes(f"csv:{path}", split, notes)
    files = [(row.picture, row.emotion) for row in rows]
    return decode_files(f"csv:{path}", split, files, path.parent, notes, subjects)


def read_table(path: Path, unread: list[str] | None = None) -> list[Row]:
    """Every row of a CSV, each picture once. unread: as in `read_rows`. Raises DataError as `load_csv`."""
    rows: list[Row] = []
    listed: dict[str, tuple[int, str]] = {}  # where a picture really lies -> its line and split
    real: dict[str, str] = {}
    people: dict[str, str] = {}  # in lower case -> as it is written first: S01 and s01 are one
    try:
        if not path.is_file():
            raise no_table(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in read_rows(file, path, unread):
                other, other_split = listed.setdefault(place_of(row.picture, real), (row.line, row.split))
                if other != row.line:
                    both = "" if other_split == row.split else f", in {other_split} and in {row.split}"
                    raise DataError(
                        f"{path}, line {row.line}: {row.picture} is listed twice{both}; keep one row per picture (line "
                        f"{other} has it too)."
                    )
                rows.append(row._replace(subject=people.setdefault(row.subject.casefold(), row.subject)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: this is not a readable UTF-8 CSV file ({error}); save it as one.") from None
    except OSError as error:
        raise DataError(f"{path}: this file cannot be read ({error.strerror}); make it readable.") from None
    return rows


def _about_people(rows: list[Row], table: list[Row], split: str) -> tuple[str, ...]:
    """What a reader of a figure must know of the people in a split; nothing where no row of it names one."""
    people: dict[str, set[str]] = {}  # subject -> the splits in which they are
    for row in table:
        people.setdefault(row.subject, set()).add(row.split)
    here = {row.subject for row in rows} - {""}
    shared = {who for who in here if len(people[who]) > 1}
    unnamed = sum(not row.subject for row in rows)
    notes = []
    if shared:
        others = [other for other in SPLITS if other != split and any(other in people[who] for who in shared)]
        notes.append(
            f"{len(shared):,} of the {len(here):,} people of the {split} split are in {' and '.join(others)} too; a "
            "figure on people who were trained on says little of others"
        )
    if here and unnamed:
        notes.append(f"{unnamed:,} {split} picture(s) name no subject; each counts as a person of its own")
    return tuple(notes)


def read_rows(lines: Iterable[str], path: Path, unread: list[str] | None = None) -> Iterator[Row]:
    """Every row of a table whose file is `path`; DataError, naming the line, for a bad one.

    unread: gets the names of the columns that none of these comes from.
    """
    lines = iter(lines)
    first, separator, top = _top(lines)
    reader = csv.reader(chain([first], lines), delimiter=separator, skipinitialspace=True)
    header = [column.strip().lower() for column in next(reader, [])]
    column = _columns(header)
    if "path" not in column or "emotion" not in column:
        how = f" with {separator!r} between them, as line 1 says" if top > 1 else ""
        official = {"emotion", "pixels", "usage"} <= set(header)
        mend = f"; {OFFICIAL}" if official else f" ({'; '.join(' or '.join(COLUMNS[c]) for c in ('path', 'emotion'))})"
        raise DataError(
            f"{path}, line {top}: the columns must be path and emotion{how}, not {', '.join(header) or 'none'}{mend}."
        )
    for name in (header[place] for place in column.values()):
        if header.count(name) > 1:
            raise DataError(f"{path}, line {top}: the column {name} is there more than once; keep or rename one.")
    if unread is not None:
        unread += [label(name) or "one without a name" for i, name in enumerate(header) if i not in column.values()]
    for cells in reader:
        row, line = [cell.strip() for cell in cells], reader.line_num + top - 1
        where = f"{path}, line {line}"
        if not any(row):
            continue
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} columns where there must be {len(header)}, as in line {top}.")
        if not row[column["path"]]:
            raise DataError(f"{where}: the path is empty; name a picture.")
        try:
            shown = canonical(row[column["emotion"]])
        except ValueError as error:
            told = numbers_told() if row[column["emotion"]].isdecimal() else ""
            raise DataError(f"{where}: {error}{told}.") from None
        named = row[column["split"]] if "split" in column else "test"
        split = split_named(named)
        if split is None:
            called = header[column["split"]]
            other = "" if called == "split" else "; give this column another name if it tells something else"
            raise DataError(f"{where}: the {called} must be train, validation or test, not {named.lower()!r}{other}.")
        picture = path.parent / row[column["path"]]
        if "\\" in row[column["path"]] and not picture.exists():  # written on Windows
            picture = path.parent / row[column["path"]].replace("\\", "/")
        yield Row(line, picture, shown, split, row[column["subject"]] if "subject" in column else "")


def has_splits(path: Path) -> bool:
    """Whether a CSV that can be read has a column for the split."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        first, separator, _ = _top(file)
    return "split" in _columns(_header(first, separator))


def _top(lines: Iterator[str]) -> tuple[str, str, int]:
    """The header of a table as a line, what stands between its columns, and which line of the file it is, from 1."""
    first = next(lines, "")
    if told := SEP.fullmatch(first):
        return next(lines, ""), "\t" if told[1] == r"\t" else told[1], 2
    return first, _separator(first), 1


def _header(line: str, separator: str) -> list[str]:
    read = csv.reader([line], delimiter=separator, skipinitialspace=True)
    return [cell.strip().lower() for cell in next(read, [])]


def _separator(line: str) -> str:
    """What stands between the columns in a CSV's header: the one with which it has those that it must have."""
    for separator in SEPARATORS:
        found = _columns(_header(line, separator))
        if "path" in found and "emotion" in found:
            return separator
    return SEPARATORS[0]


def _columns(header: list[str]) -> dict[str, int]:
    """path, emotion, split and subject -> its place in the header; without those that it does not have."""
    found = {what: [header.index(name) for name in names if name in header] for what, names in COLUMNS.items()}
    return {what: places[0] for what, places in found.items() if places}
