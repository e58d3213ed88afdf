"""What the seed of a training does: rows of one method over their seeds, and methods compared with all of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fer_bench.answers import answers_of, comparable, people_in, places_in
from fer_bench.cells import markdown_table, p_text, p_words, percent, safe
from fer_bench.errors import UserError
from fer_bench.registry import Registry
from fer_bench.results import Result
from fer_bench.statistics import Interval, difference_over_seeds, holm, several

LEVEL = 0.05
"""Two models, or methods, are told apart where the p of their test is below this."""


_TRAINED = ["complete", "pictures_seen", "earlier_pictures"]


def alike(budgets: Sequence[float]) -> np.ndarray:
    """bool (N,): which of a method's rows to take together, the most that were trained for as long as each other.

    budgets: pictures seen, or one number for all that were trained for their whole recipe; of as many, the longer ones.
    """
    values, counts = np.unique(np.asarray(budgets, dtype=np.float64), return_counts=True)
    return np.asarray(budgets) == values[len(values) - 1 - counts[::-1].argmax()]


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """What training again from other seeds comes to: a row per method and recipe of a comparable group with several
    that were trained for as long (see `alike`).

    Columns: method, recipe, seeds (how many), and of accuracy, balanced_accuracy and macro_f1 the mean (the metric's
    own name) and the standard deviation over the seeds (`_sd`, n - 1); of accuracy `least` and `greatest` too. They
    are fractions; the greatest mean comes first.
    """
    key, measured = ["method", "recipe"], ["accuracy", "balanced_accuracy", "macro_f1"]
    frame = frame.loc[frame.duplicated(key, keep=False), [*key, *measured, *_TRAINED]]  # a wide one is slow to divide
    seen = frame["pictures_seen"].fillna(0) + frame["earlier_pictures"].fillna(0)
    budget = seen.mask(frame["complete"] & frame["earlier_pictures"].isna(), np.inf)
    groups = frame.assign(budget=budget).groupby([*key, "budget"])
    found = groups[measured].mean().join(groups[measured].std(), rsuffix="_sd")
    found["seeds"], found["least"], found["greatest"] = (
        groups.size(),
        groups["accuracy"].min(),
        groups["accuracy"].max(),
    )
    found = found.reset_index().sort_values(["seeds", "budget"]).drop_duplicates(key, keep="last")
    return found[found["seeds"] > 1].sort_values(["accuracy", "method"], ascending=[False, True])


def seed_tables(frame: pd.DataFrame) -> list[str]:
    """A sentence and a Markdown table of what the seed does to rows of one comparable group; none without several."""
    found = over_seeds(frame)
    if found.empty:
        return []

    def with_sd(row: NamedTuple, name: str) -> str:
        return f"{percent(getattr(row, name))} ± {percent(getattr(row, f'{name}_sd'))}"

    columns: dict[str, Callable[[NamedTuple], str]] = {
        "Method": lambda r: f"`{r.method}` ({r.recipe})",
        "Seeds": lambda r: str(r.seeds),
        "Accuracy, %": partial(with_sd, name="accuracy"),
        "Least to greatest, %": lambda r: f"{percent(r.least)} to {percent(r.greatest)}",
        "Balanced accuracy, %": partial(with_sd, name="balanced_accuracy"),
        "Macro F1, %": partial(with_sd, name="macro_f1"),
    }
    about = (
        "**Over seeds**: methods that were trained again from other seeds, on the same test pictures. The mean, and "
        "behind ± the standard deviation over the seeds: what the luck of training comes to, where the ± of the rows "
        "above is the luck of the test pictures. Of so few seeds it is a rough figure. `python -m fer_bench.comparison "
        "METHOD METHOD --over-seeds` tells whether two can be told apart with both."
    )
    return [about, markdown_table(columns, found, words=("Method",))]


def seeds_line(frame: pd.DataFrame) -> str:
    """`seed_tables` in a sentence, for a page that has no room for the table; "" without several seeds."""
    found = over_seeds(frame)
    told = [
        f"`{safe(r.method)}` ({safe(r.recipe)}) {percent(r.accuracy)} ± {percent(r.accuracy_sd)} %, {r.seeds} seeds"
        for r in found.itertuples()
    ]
    return f"Accuracy over seeds, mean and standard deviation: {'; '.join(told)}." if told else ""


class SeedComparison(NamedTuple):
    """Two methods, each with all seeds that it was trained from, over the same pictures."""

    difference: Interval
    """Mean accuracy of the first's seeds minus that of the second's, fractions, with its 95 % interval."""
    p_value: float
    seeds: tuple[int, int]
    """How many networks of each there are; 1 is of weights that others gave away, which no seed of ours can change."""
    pictures: int
    subjects: int | None
    """People whom the interval takes as wholes; None where it is not known whom the pictures show."""

    def sentence(self, first: str, second: str) -> str:
        """The verdict in plain words; `first` and `second` are the two methods' names."""
        found = self.difference
        value, low, high = (round(100 * bound, 1) + 0.0 for bound in (found.value, found.low, found.high))
        over = f"{self.pictures:,} pictures" + ("" if self.subjects is None else f" of {self.subjects:,} people")
        trained = " and ".join(f"{name} from {n} {'seeds' if n > 1 else 'set of weights'}"
                               for name, n in zip((first, second), self.seeds, strict=True))  # fmt: skip
        if self.p_value >= LEVEL:
            verdict = f"{first} and {second} cannot be told apart"
            by = f"their mean accuracies differ by {value:+.1f} points"
        else:
            sign = 1 if value > 0 else -1
            better, worse = (first, second) if value > 0 else (second, first)
            value, (low, high) = abs(value), sorted((sign * low, sign * high))
            verdict, by = f"{better} recognises more than {worse}", f"{value:.1f} points in mean accuracy"
        interval = f"95 % interval {low:+.1f} to {high:+.1f}, training again and other pictures included"
        return f"{verdict} ({trained}; {over}): {by} ({interval}; {p_words(self.p_value)})."


def methods_of(rows: Iterable[Result]) -> dict[str, list[Result]]:
    """The rows of a track without test-time augmentation by method, best mean accuracy first, each with its seeds.

    A name is the method's, or METHOD/RECIPE where it was trained by several recipes. A method of ours of which there is
    one seed alone is left out: what another would give is not known.
    """
    found: dict[tuple[str, str], list[Result]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        if row.tta == "none":
            found.setdefault((row.method, row.recipe), []).append(row)
    for key, group in found.items():
        found[key] = [row for row, same in zip(group, alike([*map(_budget, group)]), strict=True) if same]
    kept = {key: group for key, group in found.items() if len(group) > 1 or group[0].external}
    best = sorted(kept, key=lambda key: -np.mean([row.metrics["accuracy"].value for row in kept[key]]))
    names = [method for method, _ in kept]
    return {key[0] if names.count(key[0]) == 1 else "/".join(key): kept[key] for key in best}


def _budget(row: Result) -> float:
    """How long a row was trained, as `alike` has it."""
    trained = row.trained
    if trained.complete and trained.earlier is None:
        return np.inf
    return (trained.pictures_seen or 0) + (trained.earlier.pictures_seen if trained.earlier else 0)


def pairs_of_methods(methods: Mapping[str, list[Result]], wanted: Sequence[str], track: str) -> list[tuple[str, str]]:
    """Which pairs to compare: what one name means with each other method, or every pair of several.

    Raises UserError where no method has several seeds, UnknownNameError for one that has not.
    """
    if not any(len(rows) > 1 for rows in methods.values()):
        mend = f"train one from another too: python -m fer_bench.train --method METHOD --track {track} --seed 1"
        raise UserError(f"no method has several seeds on {track}; {mend}, and evaluate it.")
    known: Registry[list[str]] = Registry("method with several seeds")
    for name in methods:
        known.add(name, [name])
    for method in dict.fromkeys(rows[0].method for rows in methods.values()):
        if method not in known:
            known.add(method, [name for name, rows in methods.items() if rows[0].method == method])
    chosen = list(dict.fromkeys(name for one in wanted for name in known[one]))
    pairs = list(combinations([name for name in methods if name in chosen], 2))
    if len(set(wanted)) == 1:
        pairs += [(name, other) for name in chosen for other in methods if other not in chosen]
    return pairs


def compare_seeds(root: Path | str, first: Sequence[Result], second: Sequence[Result]) -> SeedComparison:
    """Compare two methods by the logits that stand beside their rows under `root` (the leaderboard's folder).

    first, second: the rows of each, one per seed. Raises UserError, in one sentence, where they were measured on
    different tracks, emotions or pictures, or an answer is missing or broken.
    """
    every = [*first, *second]
    for row in every[1:]:
        comparable(every[0], row)
    found = [answers_of(root, row) for row in every]
    places = [places_in(found[0], one) for one in found]
    told = (people_in(found[0], *pair) for pair in zip(found, places, strict=True))
    people = several(next((one for one in told if one is not None), None))
    targets = found[0].targets
    right = np.stack([one.logits[there].argmax(axis=1) == targets for one, there in zip(found, places, strict=True)])
    difference, p_value = difference_over_seeds(right[: len(first)], right[len(first) :], people)
    subjects = None if people is None else len(np.unique(people))
    return SeedComparison(difference, p_value, (len(first), len(second)), len(targets), subjects)


def compare_methods(
    root: Path | str, methods: Mapping[str, list[Result]], pairs: Sequence[tuple[str, str]]
) -> tuple[pd.DataFrame, list[SeedComparison], list[str]]:
    """Compare pairs of methods: a table, a row for each; the comparisons; a line for each that cannot be.

    Columns: first, second, seeds_first, seeds_second; difference, low, high (first minus second, fractions, with the
    95 % interval); p and p_holm, adjusted for the number of pairs in the table.
    """
    compared, lines, skipped = [], [], []
    for first, second in pairs:
        try:
            found = compare_seeds(root, methods[first], methods[second])
        except UserError as error:
            skipped.append(f"{first} and {second}: {error}")
            continue
        compared.append(found)
        lines.append(
            (
                first,
                second,
                *found.seeds,
                found.difference.value,
                found.difference.low,
                found.difference.high,
                found.p_value,
            )
        )
    columns = ["first", "second", "seeds_first", "seeds_second", "difference", "low", "high", "p"]
    frame = pd.DataFrame(lines, columns=columns)
    return frame.assign(p_holm=holm(frame["p"].tolist())), compared, skipped


def methods_table(frame: pd.DataFrame) -> str:
    """The table of `compare_methods` in Markdown: points, and p-values with three digits."""
    columns: dict[str, Callable[[NamedTuple], str]] = {
        "First": lambda row: row.first,
        "Second": lambda row: row.second,
        "Seeds": lambda row: f"{row.seeds_first}, {row.seeds_second}",
        "Difference, points": lambda row: percent(row.difference, "+"),
        "95 % interval": lambda row: f"{percent(row.low, '+')} to {percent(row.high, '+')}",
        "p": lambda row: p_text(row.p),
        "p, Holm": lambda row: p_text(row.p_holm),
    }
    return markdown_table(columns, frame, ("First", "Second"))
