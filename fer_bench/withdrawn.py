"""Rows that were taken from the board, and why: `withdrawn.json` in the leaderboard's folder, written by hand.

A row that is gone without a word looks as if its figure had not pleased. Path of the record, as `results/...json`, ->
{"date": "2026-11-28", "reason": a sentence, "replaced_by": the path of the row that took its place, or null}.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from fer_bench.cells import safe
from fer_bench.errors import BrokenFilesError

FILE = "withdrawn.json"
KEYS = {"date", "reason", "replaced_by"}


@dataclass(frozen=True)
class Withdrawal:
    """Why a row is gone. date: YYYY-MM-DD. replaced_by: the path of another row, relative to the board; or None."""

    date: str
    reason: str
    replaced_by: str | None


def read_withdrawn(root: Path | str) -> dict[str, Withdrawal]:
    """Path of a record, relative to the board at `root` -> why it is gone; empty where there is no such file.

    Raises BrokenFilesError, naming the file and the entry, where it is broken or does not say why or since when.
    """
    path = Path(root) / FILE
    try:
        values = json.loads(path.read_bytes()) if path.exists() else {}
        if not isinstance(values, dict):
            raise ValueError("it must be an object")
        return {place: _entry(place, value) for place, value in values.items()}
    except (ValueError, RecursionError) as error:
        raise BrokenFilesError(f"{path} is broken ({error}); mend it by hand.") from None
    except OSError as error:
        raise BrokenFilesError(f"{path} cannot be read ({error.strerror or error}).") from None


def _entry(place: str, value: object) -> Withdrawal:
    """One entry; raises ValueError, naming it."""
    if not _is_place(place):
        raise ValueError(f"{place!r:.120} is no path such as results/fer2013/small_cnn/common-v1-s0.json")
    if not isinstance(value, dict) or value.keys() != KEYS:
        raise ValueError(f"{place} must have {', '.join(sorted(KEYS))}, and nothing else")
    day, reason, other = value["date"], value["reason"], value["replaced_by"]
    try:
        known = re.fullmatch(r"\d{4}-\d\d-\d\d", day) is not None and bool(date.fromisoformat(day))
    except (TypeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{place}: date {day!r:.40} must be a day such as 2026-11-28")
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"{place} has no reason; say in a sentence why the row is gone")
    if other is not None and not _is_place(other):
        raise ValueError(f"{place}: replaced_by {other!r:.120} must be null or the path of another record")
    return Withdrawal(day, reason.strip(), other)


def _is_place(path: object) -> bool:
    return isinstance(path, str) and re.fullmatch(r"results(/[A-Za-z0-9_-][A-Za-z0-9._-]*){3}\.json", path) is not None


def contradictions(root: Path | str) -> list[str]:
    """What the list says and the board at `root` does not bear out: a sentence for each such entry.

    A row that is listed and stands, and one whose successor does not stand and was not withdrawn later.
    Raises as `read_withdrawn` does.
    """
    entries, found = read_withdrawn(root), []
    for place, entry in entries.items():
        files = (Path(root) / place).with_suffix(".json"), (Path(root) / place).with_suffix(".npz")
        found += [f"{place} is withdrawn, but {file.name} is there" for file in files if file.exists()]
        other, passed = entry.replaced_by, {place}
        while other in entries and other not in passed:
            passed.add(other)
            other = entries[other].replaced_by
        if other is not None and not (Path(root) / other).is_file():
            found.append(f"{place} is replaced by {other}, which does not stand")
    return found


def withdrawn_list(root: Path | str) -> str:
    """The end of LEADERBOARD.md: each row that was withdrawn, the last one first; "" where there is none.

    Raises as `read_withdrawn` does.
    """
    entries = sorted(read_withdrawn(root).items(), key=lambda item: (item[1].date, item[0]), reverse=True)
    lines = []
    for place, entry in entries:
        other = "" if entry.replaced_by is None else f" In its place stands `{entry.replaced_by}`."
        lines.append(f"- {entry.date}, `{place}`: {safe(entry.reason)}{other}")
    return "\n".join(["## Withdrawn", "", *lines]) if lines else ""


def readable_list(root: Path | str) -> tuple[str, list[str]]:
    """What `withdrawn_list` gives, and what is wrong with the file: a table is made without a list that is broken."""
    try:
        return withdrawn_list(root), []
    except BrokenFilesError as error:
        return "", [str(error)]
