"""What the leaderboard tab shows, without Gradio: rows, cells, notes, and the pictures that two methods disagree on."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from html import escape
from operator import is_
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from fer_bench.beyond_accuracy import F1, emotion_text, emotions_of
from fer_bench.card_files import read_cards
from fer_bench.cells import ece_text, ratio_text
from fer_bench.comparison import Comparison
from fer_bench.errors import UserError
from fer_bench.leaderboard import (
    notes_on,
    percent,
    place,
    read_readable,
    short,
    table,
    track_title,
    trained_text,
    why_groups,
)
from fer_bench.protocols import track_named
from fer_bench.results import Result
from fer_bench.seeds import seeds_line
from fer_bench.ui.method_card import plain

if TYPE_CHECKING:
    from fer_bench.datasets import FaceSet

ALL = "all"
"""The recipe picker's value for every recipe."""
EMPTY = "There are no results yet. `python -m fer_bench.evaluate --all` makes them, and they show here on a reload."
KINDS = {
    "all": "every disagreement",
    "first": "only the first is right",
    "second": "only the second is right",
    "neither": "both are wrong, in different ways",
}
"""Which of the pictures two methods answer differently are shown."""
SHOWN = 24
"""Pictures shown at most."""
PUBLISHED = "as-published"
"""The recipe of weights that others give away: packages' (leaderboard/peers/run.py) and `from_transformers`'."""
FOREIGN = (PUBLISHED, "submitted")
"""What stands for the recipe of rows that were trained elsewhere."""


def row_names(frame: pd.DataFrame) -> list[str]:
    """A distinct name for each row of `leaderboard.table`: its method, with recipe and seed where rows differ.

    A recipe is named as soon as the table holds several (a peer's or a submission's, which is no recipe of ours, only
    beside another of the same method), a seed only where its method has several.
    """
    recipes = frame.groupby("method")["recipe"].nunique()
    own = frame["recipe"][~frame["recipe"].isin(FOREIGN)].nunique()
    seeds = frame.groupby("method")["seed"].nunique()
    return [
        row.method
        + (f" · {row.recipe}" if recipes[row.method] > 1 or (own > 1 and row.recipe not in FOREIGN) else "")
        + (f" · seed {row.seed}" if seeds[row.method] > 1 else "")
        + (f" · tta {row.tta}" if row.tta != "none" else "")
        for row in frame[["method", "recipe", "seed", "tta"]].itertuples(index=False)
    ]


def within(root: Path, text: str) -> str:
    """A message without the server's own path before the leaderboard's folder: visitors need not know it."""
    for folder in (root.absolute(), root):
        text = text.replace(f"{folder}/", f"{root.absolute().name}/")
    return text


class Cells(NamedTuple):
    """A table as the page wants it: what is sorted and filtered by, and what is shown."""

    headers: list[str]
    kinds: list[str]
    """"str" or "number" per column."""
    widths: list[int]
    """Pixels per column."""
    values: list[list]
    """str, int, float or None (not known) per cell; percentages where the header says %."""
    shown: list[list[str]]
    """The same cells as text, with intervals."""


def _whole(value: float) -> int | None:
    return None if value != value else int(value)


def _hundred(value: float) -> float | None:
    return None if value != value else round(100 * value, 2)


_COLUMNS = (
    # header, pixels, value, text
    ("Rank", 70, lambda r: int(r.rank), lambda r: str(r.rank)),
    ("Method", 214, lambda r: r.name, lambda r: r.name + _marks(r)),
    ("Accuracy, %", 130, lambda r: _hundred(r.accuracy), lambda r: f"{percent(r.accuracy)} ± {percent(_half(r))}"),
    ("Balanced, %", 126, lambda r: _hundred(r.balanced_accuracy), lambda r: _pair(r, "balanced_accuracy")),
    ("Macro F1, %", 126, lambda r: _hundred(r.macro_f1), lambda r: _pair(r, "macro_f1")),
    ("ECE, %", 118, lambda r: _hundred(r.ece), ece_text),
    ("NLL", 90, lambda r: round(r.nll, 3), lambda r: f"{r.nll:.2f}"),
    ("Reported, %", 120, lambda r: _hundred(r.reported), lambda r: percent(r.reported)),
    ("Difference", 120, lambda r: _hundred(r.difference), lambda r: percent(r.difference, "+")),
    ("Trained, share of budget", 420, lambda r: _hundred(r.budget_fraction), lambda r: trained_text(r)),
    ("Parameters", 120, lambda r: int(r.parameters), lambda r: short(r.parameters)),
    ("MACs", 90, lambda r: _whole(r.macs), lambda r: short(r.macs)),
    ("Latency, × resnet18", 190, lambda r: _ratio(r.latency_ratio), lambda r: ratio_text(r.latency_ratio)),
)
_GROUP = ("Group", 80, lambda r: int(r.group) + 1, lambda r: str(r.group + 1))
_UNSEEN = (
    "Without duplicates, %", 216, lambda r: _hundred(r.accuracy_without_duplicates),
    lambda r: percent(r.accuracy_without_duplicates),
)  # fmt: skip


def _pair(row: NamedTuple, metric: str) -> str:
    return f"{percent(getattr(row, metric))} ± {percent(getattr(row, f'{metric}_half'))}"


def _half(row: NamedTuple) -> float:
    return (row.high - row.low) / 2


def _emotion(name: str) -> tuple:
    """The column of an emotion: sorted by its F1, its recall shown too."""
    f1 = lambda r: _hundred(getattr(r, F1 + name))  # noqa: E731
    return f"{name.capitalize()}, F1 %", 185, f1, partial(emotion_text, emotion=name)


def _ratio(value: float) -> float | None:
    return None if value != value else round(value, 3)


def _marks(row: NamedTuple) -> str:
    signs = (" ◔" if row.short else "") + (" †" if row.shared_emotions_only else "")
    source = "external" if row.recipe == PUBLISHED else "submitted"
    return signs + (f" ({source}{'' if row.verified else ', not verified'})" if row.external else "")


def cells(frame: pd.DataFrame) -> Cells:
    """The cells of a frame from `Board.rows`, ready for the page; a frame without rows has headers only."""
    several = len(frame) > 0 and frame["group"].nunique() > 1
    columns = [*_COLUMNS, *map(_emotion, emotions_of(frame))]
    known = len(frame) > 0 and frame["accuracy_without_duplicates"].notna().any()
    columns[3:3] = [*((_GROUP,) if several else ()), *((_UNSEEN,) if known else ())]  # behind the accuracy
    rows = list(frame.itertuples(index=False))
    texts = [[text(row) for _, _, _, text in columns] for row in rows]
    names = min(max((9 * len(row[1]) + 20 for row in texts), default=0), 300)  # longer ones take two lines
    return Cells(
        [header for header, *_ in columns],
        ["str" if header == "Method" else "number" for header, *_ in columns],
        [max(width, names) if header == "Method" else width for header, width, *_ in columns],
        [[value(row) for _, _, value, _ in columns] for row in rows],
        texts,
    )


@dataclass(frozen=True, eq=False)
class Board:
    """What the leaderboard's folder holds at one moment."""

    root: Path
    results: tuple[Result, ...]
    cards: dict[str, dict]
    """What `read_cards` gives; none where a file of cards is broken (`problems` says so)."""
    problems: tuple[str, ...]
    """A sentence for each file that cannot be read."""
    _rows: dict[tuple, tuple[pd.DataFrame, dict[str, Result]]] = field(default_factory=dict, repr=False)
    _cells: dict[tuple, Cells] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, root: Path) -> Board:
        """The folder as it is now; files that have not changed since the last time are not read again.

        Where none has changed, this is the very board that was read last, with the tables it has made since.
        """
        results, problems = read_readable(root)
        cards: dict[str, dict] = {}
        try:
            cards = read_cards(root)
        except UserError as error:
            problems = [*problems, str(error)]
        found = cls(root, tuple(results), cards, tuple(within(root, problem) for problem in problems))
        last = _READ.get(root.absolute())
        if last is not None and last._holds_the_same_as(found):
            return last
        _READ[root.absolute()] = found
        return found

    def _holds_the_same_as(self, other: Board) -> bool:
        """Whether both are of the same files: `read_readable` gives the same objects for those that did not change."""
        same = len(self.results) == len(other.results) and all(map(is_, self.results, other.results))
        return same and (self.root, self.cards, self.problems) == (other.root, other.cards, other.problems)

    def tracks(self) -> list[tuple[str, str]]:
        """(title, track) of the tracks with results, in the table's order."""
        return [(track_title(track), track) for track in sorted({r.track for r in self.results}, key=place)]

    def recipes(self, track: str | None) -> list[tuple[str, str]]:
        """(title, recipe) of those with results on the track, after `ALL`."""
        known = sorted({result.recipe for result in self.results if result.track == track})
        return [("every recipe", ALL), *((recipe, recipe) for recipe in known)]

    def rows(self, track: str | None, recipe: str | None = ALL) -> tuple[pd.DataFrame, dict[str, Result]]:
        """`leaderboard.table` with a column `name`, and the results by that name; both empty for an unknown track."""
        if (track, recipe) in self._rows:
            return self._rows[track, recipe]
        found = self._table(track, recipe)
        if found[1]:  # what nobody measured is not kept: strangers may ask for any number of names
            self._rows[track, recipe] = found
        return found

    def named(self, track: str | None, recipe: str | None, asked: str | None) -> str | None:
        """The name of the row that is meant by a name or by its beginning; None where there is none.

        A row's name says more or less of its recipe and its seed as rows come and go, and a link is to outlive that.
        Of several the one that is called least is meant (no test-time augmentation), and of these the first seed's.
        """
        results = self.rows(track, recipe)[1]
        if not asked or asked in results:
            return asked or None
        method, *more = asked.split(" · ")
        said = {name: {r.recipe, f"seed {r.seed}", f"tta {r.tta}"} for name, r in results.items() if r.method == method}
        meant = [name for name, whole in said.items() if whole.issuperset(more)]
        return min(meant, key=lambda name: (name.count(" · "), results[name].seed), default=None)

    def cells(self, track: str | None, recipe: str | None = ALL) -> Cells:
        """`cells` of those rows."""
        if (track, recipe) in self._cells:
            return self._cells[track, recipe]
        frame, results = self.rows(track, recipe)
        found = cells(frame)
        if results:
            self._cells[track, recipe] = found
        return found

    def _table(self, track: str | None, recipe: str | None) -> tuple[pd.DataFrame, dict[str, Result]]:
        chosen = [r for r in self.results if r.track == track and recipe in (None, ALL, r.recipe)]
        if not chosen:
            return pd.DataFrame(), {}
        # Of all results: how large a training split is can be seen from other tracks' rows too.
        frame = table(self.results, self.cards, track, None if recipe == ALL else recipe)
        frame["name"] = row_names(frame)
        keys = zip(frame["method"], frame["recipe"], frame["seed"], frame["tta"], strict=True)
        known = {(r.method, r.recipe, r.seed, r.tta): r for r in chosen}
        return frame, {name: known[key] for name, key in zip(frame["name"], keys, strict=True)}


_READ: dict[Path, Board] = {}
"""The board last read of each folder."""


def notes(frame: pd.DataFrame, results: Sequence[Result], problems: Sequence[str]) -> tuple[str, str]:
    """What a reader of the table must know, and what there is to say of single rows, as Markdown."""
    lines = [f"- **Left out:** {plain(problem)}" for problem in problems]
    if not len(frame):
        return "\n".join([EMPTY, "", *lines]), ""
    first = frame.iloc[0]
    about = f"{first['test_pictures']:,} test pictures of {first['emotions']}."
    why = why_groups(frame)
    if why:
        about += f" {why}: ranks start anew in each group, and the chart shows group 1."
    seeds = [f"- {line}" for line in filter(None, [seeds_line(frame[frame["group"] == 0])])]
    return "\n".join([about, "", *lines]), "\n".join([*seeds, *notes_on(results, frame)])


def chosen_pictures(comparison: Comparison, kind: str = ALL) -> np.ndarray:
    """int64 (M,), M <= SHOWN: positions of disagreeing pictures of a kind (a key of KINDS), spread over all of them."""
    where = comparison.disagree
    first = comparison.first[where] == comparison.targets[where]
    second = comparison.second[where] == comparison.targets[where]
    where = where[{"all": first | True, "first": first, "second": second, "neither": ~first & ~second}[kind]]
    return where[np.linspace(0, len(where) - 1, min(SHOWN, len(where))).round().astype(np.int64)]


@dataclass(frozen=True, eq=False)
class Disagreement:
    """A test picture that two rows answer differently."""

    sample: str
    """Its name in the data set."""
    pixels: np.ndarray
    """uint8 (H, W) or (H, W, 3)."""
    true: str
    answers: tuple[tuple[str, str, bool], ...]
    """(row's name, its answer, whether that is right) of both."""


def disagreements(
    comparison: Comparison, first: tuple[str, Result], second: tuple[str, Result], kind: str = ALL
) -> tuple[list[Disagreement], str]:
    """Up to SHOWN pictures that two rows answer differently, with both answers, and a line about them.

    first, second: each row's name and result. Where the data is not here, no picture and a line that says why and how
    to get it. Pictures of a user's own folder are never shown for a submitted row, which could name any folder.
    """
    where = chosen_pictures(comparison, kind)
    if not len(where):
        return [], f"There is no such picture among the {comparison.pictures:,}: {KINDS[kind]}."
    (one, result), (other, _) = first, second
    if ":" in result.track and (result.external or second[1].external):
        return [], "The pictures of a submitted row's own folder are not shown."
    try:
        faces = _test_pictures(result.track, _folder(result.track))
    except (UserError, OSError) as error:
        return [], f"The pictures cannot be shown, for their data is not here. {plain(error)}"
    position = {name: index for index, name in enumerate(faces.ids)}
    at = [position.get(comparison.ids[index], -1) for index in where]
    truth = [comparison.emotions[comparison.targets[index]] for index in where]
    if min(at) < 0 or [faces.emotions[faces.labels[index]] for index in at] != truth:
        return [], f"The copy of {plain(faces.name)} here is not the one that was measured; evaluate both again."
    pictures = []
    for index, true, source in zip(where, truth, at, strict=True):
        says, also = (comparison.emotions[answers[index]] for answers in (comparison.first, comparison.second))
        answers = tuple((name, said, said == true) for name, said in ((one, says), (other, also)))
        pictures.append(Disagreement(faces.ids[source], faces.images[source], true, answers))
    differ = f"They answer {len(comparison.disagree):,} of {comparison.pictures:,} pictures differently"
    return pictures, f"{differ}; {len(at)} are shown here ({KINDS[kind]})."


def _folder(track: str) -> Path | None:
    from fer_bench.datasets import data_folder

    return data_folder(track_named(track).dataset)


@lru_cache(maxsize=2)
def _test_pictures(track: str, folder: Path | None) -> FaceSet:
    """The test split of a track, kept for the next look. folder: where its data lies, so that a move is noticed."""
    from fer_bench.datasets import load_dataset

    known = track_named(track)
    return load_dataset(known.dataset, known.test, folder if ":" not in track else None).restrict(known.emotions)


def figures(pictures: Sequence[Disagreement]) -> str:
    """The pictures as HTML, inside the page itself: no file of them is made that would outlive the visit."""
    return f'<div class="fer-pairs">{"".join(map(_figure, pictures))}</div>' if pictures else ""


def _figure(item: Disagreement) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(item.pixels).save(buffer, "PNG")
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    lines = "".join(
        f'<span class="{"right" if right else "wrong"}">{"✓" if right else "✗"} {escape(name)}: {escape(said)}</span>'
        for name, said, right in item.answers
    )
    caption = f"<figcaption><strong>True: {escape(item.true)}</strong>{lines}</figcaption>"
    return f'<figure><img src="{source}" alt="Test picture {escape(item.sample)}">{caption}</figure>'
