"""The table of a grid: one line per cell, one per setting where it was trained under several seeds, and a verdict.

Each line also says how far it lies from the file's first, by the validation pictures that both answered, so that a file
which begins with the whole and then leaves out one thing at a time is an ablation. Of single cells the interval holds
for these weights alone, of several seeds for training them again. Validation chose each cell's epoch as well, which
flatters all of them alike.
"""

from __future__ import annotations

import csv
import io
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.files import atomic_write
from fer_bench.grid.cells import FAILED, Cell, Plan
from fer_bench.statistics import Interval, difference_over_seeds, holm, wilson

ACCURACY = "validation_accuracy"
RESULTS = ("best_epoch", "epochs_run", "ended", "minutes", "folder")
DIFFERENCE = ("difference", "low", "high", "p_holm")
"""Accuracy minus that of the file's first cell (setting): fractions, a 95 % interval, p adjusted for all of them."""
Row = Mapping[str, Any]
Lines = tuple[list[str], list[list[str]]]
"""Header and lines."""


@dataclass(frozen=True)
class Group:
    """Cells that differ in their seed alone."""

    settings: Mapping[str, Any]
    """Of all of them, without the seed."""
    seeds: int
    values: tuple[float, ...]
    """Validation accuracies of those that have one, fractions."""
    difference: tuple[str, ...] = ("",) * len(DIFFERENCE)
    """DIFFERENCE as written: from the setting that the file has first."""

    @property
    def mean(self) -> float:
        """Of `values`; -1 where there is none, which sorts last."""
        return statistics.fmean(self.values) if self.values else -1.0

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def groups(cells: Sequence[Cell], rows: Sequence[Row]) -> list[Group]:
    """Cells by what they share beside the seed, the best mean first; [] where no settings have two seeds."""
    shared: list[tuple[dict[str, Any], list[int]]] = []
    for number, cell in enumerate(cells):
        settings = {name: value for name, value in cell.settings.items() if name != "seed"}
        same = next((found for known, found in shared if known == settings), None)
        if same is None:
            shared.append((settings, [number]))
        else:
            same.append(number)
    if all(len(same) < 2 for _, same in shared):
        return []
    apart = differences([[cells[number] for number in same] for _, same in shared])
    found = [
        Group(settings, len(same), tuple(rows[n][ACCURACY] for n in same if _has(rows[n])), difference)
        for (settings, same), difference in zip(shared, apart, strict=True)
    ]
    return sorted(found, key=lambda g: -g.mean)


def differences(settings: Sequence[Sequence[Cell]]) -> list[tuple[str, ...]]:
    """DIFFERENCE, as it is written, of each setting, given as its cells, from the first of them.

    Empty where it cannot be told: of the first itself, without weights, and on other pictures or fewer than two.
    """
    first, *others = [_answered(cells) for cells in settings]
    found: list[tuple[Interval, float] | None] = [None]
    for right in others:
        same = first is not None and right is not None and right.shape[1] == first.shape[1] > 1
        found.append(difference_over_seeds(right, first) if same else None)
    adjusted = iter(holm([p for _, p in filter(None, found)]))
    return [_told(one[0], next(adjusted)) if one else ("",) * len(DIFFERENCE) for one in found]


def _answered(cells: Sequence[Cell]) -> np.ndarray | None:
    """bool (cells that have weights, N): which validation pictures each recognises; None where none tells."""
    known = [right for cell in cells if (right := cell.recognised()) is not None]
    return np.stack(known) if len({len(right) for right in known}) == 1 else None


def _told(apart: Interval, p_value: float) -> tuple[str, ...]:
    return (*(f"{value:+.4f}" for value in (apart.value, apart.low, apart.high)), f"{p_value:.4f}")


def by_cell(cells: Sequence[Cell], rows: Sequence[Row], file: Path) -> Lines:
    """The axes, accuracy, DIFFERENCE, RESULTS and the grid's file; the best accuracy first, cells without one last."""
    axes = list(dict.fromkeys(name for cell in cells for name in cell.settings))
    apart = differences([[cell] for cell in cells])
    lines = [
        [*(cell.settings.get(n, "") for n in axes), row.get(ACCURACY, ""), *own, *(row.get(n, "") for n in RESULTS)]
        for cell, row, own in sorted(zip(cells, rows, apart, strict=True), key=lambda one: -one[1].get(ACCURACY, -1.0))
    ]
    return [*axes, ACCURACY, *DIFFERENCE, *RESULTS, "file"], [[*map(str, line), str(file.resolve())] for line in lines]


def by_seeds(found: Sequence[Group]) -> Lines:
    """The axes but the seed; seeds asked for and finished; mean and standard deviation of accuracy; DIFFERENCE."""
    axes = list(dict.fromkeys(name for group in found for name in group.settings))
    lines = []
    for group in found:
        mean = f"{group.mean:.4f}" if group.values else ""
        sd = "" if group.sd is None else f"{group.sd:.4f}"
        settings = [str(group.settings.get(name, "")) for name in axes]
        lines.append([*settings, str(group.seeds), str(len(group.values)), mean, sd, *group.difference])
    return [*axes, "seeds", "finished", "mean", "sd", *DIFFERENCE], lines


def write_table(plan: Plan, cells: Sequence[Cell]) -> Path:
    """NAME.csv in the plan's `out`, and NAME-seeds.csv where there are several seeds: each whole or not at all.

    Returns the first.
    """
    rows = [cell.row() for cell in cells]
    found = groups(cells, rows)
    if found:
        _write(plan.out / f"{plan.name}-seeds.csv", by_seeds(found))
    return _write(plan.out / f"{plan.name}.csv", by_cell(cells, rows, plan.file))


def _write(path: Path, lines: Lines) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([lines[0], *lines[1]])
    return atomic_write(path, text.getvalue().encode())


def markdown(lines: Lines) -> str:
    """The table as Markdown, without the folders and the file."""
    keep = [index for index, name in enumerate(lines[0]) if name not in ("folder", "file")]
    every = [lines[0], ["---"] * len(lines[0]), *lines[1]]
    return "\n".join("| " + " | ".join(line[index] for index in keep) + " |" for line in every)


def report(plan: Plan, cells: Sequence[Cell]) -> int:
    """Write and print the table when all is over; one sentence on it. Returns the exit code.

    0: every cell was run and one has weights; 1: none has, or some failed in a way that another try may mend.
    """
    table = write_table(plan, cells)
    rows = [cell.row() for cell in cells]
    found = groups(cells, rows)
    print(markdown(by_seeds(found) if found else by_cell(cells, rows, plan.file)))
    pictures = [min(plan.pictures, cell.options.limit_validation or plan.pictures) for cell in cells]
    told = seeds_verdict(found) if found else verdict(rows, pictures)
    failed = sum(row["ended"].startswith(FAILED) for row in rows)
    again = f"; {failed} failed, the same command tries them again" if failed else ""
    chosen = f"chosen between on {plan.track.validation} alone"
    print(f"{table}: {len(cells)} cells, {chosen}{told}{again}", file=sys.stderr)
    return 0 if not failed and any(map(_has, rows)) else 1


def seeds_verdict(found: Sequence[Group]) -> str:
    """How far the best setting can be told from the others; "" where none has an accuracy under two seeds."""
    known = [group for group in found if group.sd is not None]
    if not known:
        return ""
    best = known[0]
    near = sum(group.mean >= best.mean - 2 * (best.sd or 0.0) for group in known) - 1
    of = f"mean {best.mean:.4f} (sd {best.sd:.4f} over {len(best.values)} seeds)"
    return f"; the best has {of}; {near} other setting(s) lie within two sd of it"


def verdict(rows: Sequence[Row], pictures: Sequence[int]) -> str:
    """How far the best cell can be told from the others; "" where none has an accuracy.

    pictures: how many each cell was validated on.
    """
    known = [(row[ACCURACY], n) for row, n in zip(rows, pictures, strict=True) if _has(row)]
    if not known:
        return ""
    best, n = max(known)
    low, high = wilson(best, n)
    near = sum(value >= low for value, _ in known) - 1
    return f"; the best has {best:.4f} ({low:.4f} to {high:.4f} on {n:,} pictures); {near} other cell(s) lie in that"


def _has(row: Row) -> bool:
    return ACCURACY in row
