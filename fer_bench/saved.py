"""The board in Python: its rows as a pandas frame, and what each row's model answered. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_bench.answers import answers_of, places_in
from fer_bench.board_data import KEY, gather
from fer_bench.comparison import as_entered
from fer_bench.errors import BrokenFilesError, UserError
from fer_bench.files import board_folder, track_folder
from fer_bench.leaderboard import table
from fer_bench.results import Result, read_readable, read_result, result_path


@dataclass(frozen=True, eq=False)
class Answers:
    """What a row's model answered on the N test pictures, over K emotions."""

    ids: np.ndarray
    """unicode (N,), the pictures' names in their data set."""
    emotions: tuple[str, ...]
    """K names, in the order of the columns of `logits`."""
    targets: np.ndarray
    """int64 (N,): the labels, indices into `emotions`."""
    logits: np.ndarray
    """float32 (N, K), each row's largest 0; `metrics.softmax` makes probabilities of them."""
    subjects: np.ndarray | None
    """(N,), whom each picture shows; None where that is not known."""
    record: Path
    """The record that they lie beside."""

    def in_order_of(self, other: Answers) -> Answers:
        """The same answers, with the pictures in another row's order, so that both can be taken together.

        Raises UserError where they are of other emotions, other pictures or other labels.
        """
        if self.emotions != other.emotions:
            told = f"{', '.join(self.emotions)}; {', '.join(other.emotions)}"
            raise UserError(f"{self.record} and {other.record} tell different emotions ({told}).")
        there = places_in(other, self)
        people = None if self.subjects is None else self.subjects[there]
        moved = {name: getattr(self, name)[there] for name in ("ids", "targets", "logits")}
        return replace(self, **moved, subjects=people)


def load_results(track: str | Iterable[str] | None = None, root: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Every row of the board, best first, as `python -m fer_bench.leaderboard --csv` writes them.

    track: a track's name, or several; None is all. root: a leaderboard's folder; None is that of this checkout, else
    ./leaderboard. `board_data.COLUMNS` says what each column is: shares are fractions, what is not known is NaN or NA.
    Raises UserError, naming what there is, where there is no result, and BrokenFilesError, naming each, where a file
    of these rows cannot be read: ranks without it would be others.
    """
    tracks = () if track is None else (track,) if isinstance(track, str) else tuple(track)
    frame, problems = gather(board_folder() if root is None else root, table, tracks)
    if problems:
        raise BrokenFilesError("\n".join(problems))
    return frame


def load_answers(
    row: Any,
    method: str | None = None,
    recipe: str | None = None,
    seed: int = 0,
    tta: str = "none",
    *,
    root: str | os.PathLike[str] | None = None,
) -> Answers:
    """What a row's model answered, picture by picture, as it lies beside its record; no model and no data is needed.

    row: a track, with `method` and, where that has several, `recipe`; or a row of `load_results` (a Series, a mapping
    or what `itertuples` gives), a Result, or the path of a record. root: as in `load_results`. Raises UserError, naming
    what there is, where there is no such row, and where its answers are missing, broken or not those of its record.
    """
    base = board_folder() if root is None else Path(root)
    if method is None and isinstance(row, str | os.PathLike):
        base, result = _at(os.fspath(row), base)
    else:
        asked = (row, method, recipe, seed, tta) if method is not None else _key_of(row)
        result = _row_of(base, *asked)
    found = answers_of(base, result)
    record = result_path(base, *(getattr(result, name) for name in KEY))
    return Answers(found.ids, result.emotions, found.targets, found.logits, found.subjects, record)


def _at(text: str, base: Path) -> tuple[Path, Result]:
    """The board and the record of a path, from the working directory or from the board's folder."""
    if not text.endswith((".json", ".npz")):
        raise UserError(
            f"{text!r} is no record's path, which ends with .json; of a track give the method too: "
            f"load_answers({text!r}, 'METHOD')."
        )
    given = Path(text).with_suffix(".json")
    path = given if given.exists() or not (base / given).exists() else base / given
    result = read_result(path)
    return Path(*path.absolute().parts[:-4]), result


def _key_of(row: Any) -> tuple[Any, ...]:
    """What names a row of `load_results`, or a Result."""
    try:
        return tuple(row[name] if isinstance(row, Mapping | pd.Series) else getattr(row, name) for name in KEY)
    except (KeyError, AttributeError) as error:
        kind = type(row).__name__
        raise UserError(
            f"a value of type {kind} does not name a row ({error}); give a track and a method, a row of load_results "
            "or a record's path."
        ) from None


def _row_of(base: Path, track: str, method: str, recipe: str | None, seed: int, tta: str) -> Result:
    """The one record of that name. Raises UserError with those that there are."""
    track = as_entered(base, str(track).rstrip("/"))
    results, problems = read_readable(base)
    here = [result for result in results if result.track == track]
    rows = [result for result in here if result.method == method]
    found = [r for r in rows if r.seed == seed and r.tta == tta and recipe in (None, r.recipe)]
    if len(found) == 1:
        return found[0]
    if found:
        recipes = ", ".join(r.recipe for r in found)
        raise UserError(f"{method} has several rows on {track}: give recipe= one of {recipes}.")
    place = f"{track_folder(track)}/{method}/"
    if broken := [line for line in problems if place in line.replace("\\", "/")]:
        raise UserError(broken[0])
    if rows:
        asked = f"{f'recipe {recipe}, ' if recipe else ''}seed {seed}, tta {tta}"
        names = (result_path("", track, method, r.recipe, r.seed, r.tta).stem for r in rows)
        raise UserError(f"{method} has no row of {asked} on {track}; its rows there are: {', '.join(names)}.")
    kind, there = ("tracks", results) if not here else ("methods", here)
    known = ", ".join(dict.fromkeys(r.track if kind == "tracks" else r.method for r in there)) or "none"
    what = track if kind == "tracks" else f"{method} on {track}"
    raise UserError(f"{base / 'results'} holds no row of {what}; the {kind} there are: {known}.")
