"""Two models over the same pictures: how far apart they are, how sure that is, and where they disagree.

`python -m fer_bench.comparison METHOD ...` compares rows of a board by the answers that lie beside their results.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from fer_bench.answers import answers_of, comparable, people_in, places_in
from fer_bench.cells import markdown_table, p_text, p_words, percent
from fer_bench.errors import UserError
from fer_bench.files import atomic_write
from fer_bench.metrics import checked
from fer_bench.registry import Registry, UnknownNameError
from fer_bench.results import Logits, Result, read_readable, result_path, track_folder
from fer_bench.seeds import LEVEL, compare_methods, methods_of, methods_table, pairs_of_methods
from fer_bench.statistics import Interval, holm, mcnemar, paired_difference, several, sign_flip


@dataclass(frozen=True, eq=False)
class Comparison:
    """What two models answered over the same N pictures of K emotions."""

    emotions: tuple[str, ...]
    difference: Interval
    """Accuracy of the first minus that of the second, fractions, with its paired 95 % bootstrap interval."""
    p_value: float
    """Exact two-sided p-value that both err equally often: McNemar's or, where people are known, the sign flips'."""
    agreement: np.ndarray
    """int64 (K, K): rows are the first model's answers, columns the second's."""
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    ids: tuple[str, ...]
    """N sample names."""
    targets: np.ndarray
    """int64 (N,), indices into `emotions`."""
    first: np.ndarray
    """int64 (N,): the first model's answers."""
    second: np.ndarray
    """int64 (N,): the second's."""
    subjects: int | None = None
    """People whom interval and test take as wholes; None where it is not known whom the pictures show."""

    @property
    def test(self) -> str:
        """What `p_value` is of."""
        return "McNemar" if self.subjects is None else "sign flips by person"

    @property
    def pictures(self) -> int:
        return len(self.targets)

    @property
    def disagree(self) -> np.ndarray:
        """int64 (M,): positions of the pictures that the two answer differently, in order."""
        return np.flatnonzero(self.first != self.second)

    def sentence(self, first: str, second: str) -> str:
        """The verdict in plain words; `first` and `second` are the two models' names, written as they are given.

        The test and the interval, read to a tenth of a point, nearly always agree; where not, both are said.
        """
        bounds = (self.difference.value, self.difference.low, self.difference.high)
        value, low, high = (round(100 * bound, 1) + 0.0 for bound in bounds)  # + 0.0: no "-0.0"
        p = p_words(self.p_value)
        total = f"{self.pictures:,} pictures" + ("" if self.subjects is None else f" of {self.subjects:,} people")
        tested = "McNemar's test" if self.subjects is None else "the test by sign flips of whole people"
        significant, apart = self.p_value < LEVEL, low > 0 or high < 0
        if significant != apart:
            holds = "leaves out 0" if apart else "touches 0" if 0 in (low, high) else "holds 0"
            finds = "a difference" if significant else "none"
            return (
                f"{first} and {second} are hard to tell apart on these {total}: their accuracies differ by "
                f"{value:+.1f} points, and the 95 % interval, {low:+.1f} to {high:+.1f}, {holds}, while {tested} "
                f"finds {finds} ({p})."
            )
        if not significant:
            return (
                f"{first} and {second} cannot be told apart on these {total}: their accuracies differ by "
                f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}; {self.test} {p})."
            )
        better, worse, sign = (first, second, 1) if value > 0 else (second, first, -1)
        low, high = sorted((sign * low, sign * high))
        return (
            f"They differ by {abs(value):.1f} points (95 % interval {low:.1f} to {high:.1f}): {better} recognises more "
            f"of these {total} than {worse}, and chance alone does not explain it ({self.test} {p})."
        )


def compare(
    targets: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    emotions: Sequence[str],
    ids: Sequence[str] | None = None,
    subjects: np.ndarray | None = None,
) -> Comparison:
    """Compare two models' logits (float (N, K) each) over the same pictures.

    targets: int (N,), indices into `emotions` (K names). ids: N sample names, by default their positions. subjects:
    (N,), whom each picture shows: interval and test then take all pictures of a person together, where there are two.
    Raises ValueError where shapes contradict each other.
    """
    subjects = several(subjects)
    targets, first = checked(targets, first)
    _, second = checked(targets, second)
    if not first.shape[1] == second.shape[1] == len(emotions):
        raise ValueError(f"logits {first.shape} and {second.shape} do not match {len(emotions)} emotions")
    names = tuple(map(str, range(len(targets)) if ids is None else ids))
    if len(names) != len(targets):
        raise ValueError(f"{len(names)} ids do not match {len(targets)} pictures")
    one, other = first.argmax(axis=1), second.argmax(axis=1)
    agreement = np.zeros((len(emotions), len(emotions)), dtype=np.int64)
    np.add.at(agreement, (one, other), 1)
    right, also = one == targets, other == targets
    return Comparison(
        emotions=tuple(emotions),
        difference=paired_difference(targets, first, second, subjects=subjects),
        p_value=mcnemar(targets, first, second) if subjects is None else sign_flip(targets, first, second, subjects),
        agreement=agreement,
        both_right=int((right & also).sum()),
        only_first=int((right & ~also).sum()),
        only_second=int((also & ~right).sum()),
        both_wrong=int((~right & ~also).sum()),
        ids=names, targets=targets, first=one, second=other,
        subjects=None if subjects is None else len(np.unique(subjects)),
    )  # fmt: skip


def compare_logits(first: Logits, second: Logits, emotions: Sequence[str]) -> Comparison:
    """Compare two results' saved answers, aligned by sample id: the order may differ, the pictures may not.

    Raises UserError, in one sentence, where they are not the same pictures with the same labels.
    """
    there = places_in(first, second)
    people = people_in(first, second, there)
    return compare(first.targets, first.logits, second.logits[there], emotions, first.ids.tolist(), people)


def compare_results(root: Path | str, first: Result, second: Result) -> Comparison:
    """Compare two results by the logits that stand beside them under `root` (the leaderboard's folder).

    Raises UserError, in one sentence, where they were measured on different tracks, emotions or pictures; ResultError
    (a UserError) where the logits of one are missing or broken.
    """
    comparable(first, second)
    logits = [answers_of(root, result) for result in (first, second)]
    return compare_logits(*logits, first.emotions)


def rows_of_board(root: Path | str, track: str) -> tuple[dict[str, Result], list[str]]:
    """The results of a track under `root` by name, best accuracy first, and a line for each of its that cannot be read.

    A name is the method's where it has one row here without test-time augmentation, else METHOD/RECIPE-sSEED, as the
    result's file is called.
    """
    found, problems = read_readable(root)
    own = os.path.join("results", track_folder(track), "")
    rows = sorted((r for r in found if r.track == track), key=lambda r: -r.metrics["accuracy"].value)
    plain = [row.method for row in rows if row.tta == "none"]
    names = [row.method if row.tta == "none" and plain.count(row.method) == 1 else whole_name(row) for row in rows]
    return dict(zip(names, rows, strict=True)), [problem for problem in problems if own in problem]


def tracks_in(root: Path | str, asked: Sequence[str] | None = None) -> list[str]:
    """The tracks of the results under `root`, each once; or those that are asked for, as these results have them."""
    if asked:
        return list(dict.fromkeys(as_entered(root, track) for track in asked))
    return list(dict.fromkeys(row.track for row in read_readable(root)[0]))


def as_entered(root: Path | str, track: str) -> str:
    """The track as the results under `root` have it: own pictures may be written there with another path."""
    if ":" not in track:
        return track
    from fer_bench.weights import same_track  # here, since it brings in torch

    names = tracks_in(root)
    return track if track in names else next((name for name in names if same_track(name, track)), track)


def whole_name(row: Result) -> str:
    """METHOD/RECIPE-sSEED, with test-time augmentation -TTA behind it."""
    return f"{row.method}/{result_path('', row.track, row.method, row.recipe, row.seed, row.tta).stem}"


def pairs_of(rows: Mapping[str, Result], wanted: Sequence[str]) -> list[tuple[str, str]]:
    """Which pairs of a board's rows to compare: what one name means with each other row, or every pair of several.

    wanted: names of rows, short or whole, or of methods, which stand for all their rows. Rows with test-time
    augmentation take part only where their names are given. Raises UnknownNameError.
    """
    plain = [name for name, row in rows.items() if row.tta == "none"]
    whole = {whole_name(row): name for name, row in rows.items()}
    known: Registry[list[str]] = Registry("row")
    for name in rows:
        known.add(name, [name])
    for method in dict.fromkeys(rows[name].method for name in plain):
        if method not in known:
            known.add(method, [name for name in plain if rows[name].method == method])
    chosen = list(dict.fromkeys(name for one in wanted for name in known[whole.get(one, one)]))
    pairs = list(combinations([name for name in rows if name in chosen], 2))
    if len(set(wanted)) == 1:
        pairs += [(name, other) for name in chosen for other in plain if other not in chosen]
    return pairs


def compare_pairs(
    root: Path | str, rows: dict[str, Result], pairs: Sequence[tuple[str, str]]
) -> tuple[pd.DataFrame, list[Comparison], list[str]]:
    """Compare pairs of a board's rows: a table, a row for each; the comparisons; a line for each that cannot be.

    Columns: first, second; difference, low, high (first minus second, fractions, with the paired 95 % interval);
    only_first, only_second (pictures that only one recognises); p, test (what p is of: `Comparison.test`) and p_holm,
    adjusted for the number of pairs in the table.
    """
    compared, lines, skipped = [], [], []
    for first, second in pairs:
        try:
            found = compare_results(root, rows[first], rows[second])
        except UserError as error:
            skipped.append(f"{first} and {second}: {error}")
            continue
        compared.append(found)
        difference = found.difference
        line = (first, second, difference.value, difference.low, difference.high)
        lines.append((*line, found.only_first, found.only_second, found.p_value, found.test))
    columns = ["first", "second", "difference", "low", "high", "only_first", "only_second", "p", "test"]
    frame = pd.DataFrame(lines, columns=columns)
    return frame.assign(p_holm=holm(frame["p"].tolist())), compared, skipped


def pairs_table(frame: pd.DataFrame) -> str:
    """The table of `compare_pairs` in Markdown: points, and p-values with three digits."""
    tests = frame["test"].unique()
    columns = {
        "First": lambda row: row.first,
        "Second": lambda row: row.second,
        "Difference, points": lambda row: percent(row.difference, "+"),
        "95 % interval": lambda row: f"{percent(row.low, '+')} to {percent(row.high, '+')}",
        "Only first right": lambda row: f"{row.only_first:,}",
        "Only second right": lambda row: f"{row.only_second:,}",
        (f"{tests[0]} p" if len(tests) == 1 else "p"): lambda row: p_text(row.p),
        **({} if len(tests) == 1 else {"Test": lambda row: row.test}),
        "p, Holm": lambda row: p_text(row.p_holm),
    }
    return markdown_table(columns, frame, ("First", "Second"))


def main(argv: list[str] | None = None) -> int:
    """Compare rows of the board picture by picture. Exit codes: 0 done, 1 a file could not be read or written, or two
    rows not be compared, 2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_bench.comparison",
        allow_abbrev=False,  # --out, the folder of other commands, would be --output, a file
        description="Compare results picture by picture: the difference in accuracy with its paired bootstrap interval "
        "and McNemar's exact test (sign flips of whole people where it is known whom the pictures show). One METHOD is "
        "compared with every other row, several with each other; the p-values of several pairs are also given with "
        "Holm's adjustment.",
    )
    naming = "a method, or one of its rows as METHOD/RECIPE-sSEED (-flip, -tencrop with test-time augmentation)"
    parser.add_argument("methods", nargs="+", metavar="METHOD", help=naming)
    parser.add_argument("--track", default="fer2013", help="the track whose results are compared (%(default)s)")
    parser.add_argument("--board", default="leaderboard", metavar="DIR", help="the leaderboard's folder (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.csv", help="also write the table as CSV, unrounded")
    parser.add_argument(
        "--over-seeds", action="store_true",
        help="compare methods by the mean over all seeds that they were trained from for as long; interval and p then "
        "hold for training them again. Methods of one seed take no part, weights that others gave away do",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    over, track = arguments.over_seeds, arguments.track.rstrip("/")
    try:
        track = as_entered(arguments.board, track)
        rows, problems = rows_of_board(arguments.board, track)
        for problem in problems:
            print(f"skipped {problem}", file=sys.stderr)
        if not rows:
            there = ", ".join(sorted({row.track for row in read_readable(arguments.board)[0]})) or "none"
            folder = Path(arguments.board) / "results"
            mend = "--board takes the folder that evaluate got as --out"
            raise UserError(f"{folder} holds no result of {track} (tracks there: {there}); {mend}.")
        methods = methods_of(rows.values()) if over else {}
        pairs = pairs_of_methods(methods, arguments.methods, track) if over else pairs_of(rows, arguments.methods)
        if not pairs:
            several = len(set(arguments.methods)) > 1
            same = f"{' and '.join(dict.fromkeys(arguments.methods))} mean one and the same row"
            alone = "row" if not over else "method with several seeds"
            which = same if several else f"{arguments.methods[0]} is the only {alone}"
            raise UserError(f"{which} of {track}; there is nothing to compare.")
    except (UserError, UnknownNameError) as error:
        print(error, file=sys.stderr)
        return 2
    frame, compared, skipped = (compare_methods if over else compare_pairs)(
        arguments.board, methods if over else rows, pairs
    )
    for line in skipped:
        print(f"skipped {line}", file=sys.stderr)
    if len(compared) == 1:
        print(f"{compared[0].sentence(*frame.loc[0, ['first', 'second']])}\n")
    if compared:
        print(methods_table(frame) if over else pairs_table(frame))
    try:
        if arguments.output is not None and compared:
            atomic_write(arguments.output, frame.to_csv(index=False).encode())
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if problems or skipped else 0


if __name__ == "__main__":
    sys.exit(main())
