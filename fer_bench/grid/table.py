"""The table of a grid: one line per cell, one per setting where it was trained under several seeds, and a verdict."""

from __future__ import annotations

import csv
import io
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_bench.files import atomic_write
from fer_bench.grid.cells import FAILED, Cell, Plan
from fer_bench.statistics import wilson

RESULTS = ("validation_accuracy", "best_epoch", "epochs_run", "ended", "minutes", "folder")
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
    shared: list[tuple[dict[str, Any], list[Row]]] = []
    for cell, row in zip(cells, rows, strict=True):
        settings = {name: value for name, value in cell.settings.items() if name != "seed"}
        same = next((found for known, found in shared if known == settings), None)
        if same is None:
            shared.append((settings, [row]))
        else:
            same.append(row)
    found = [
        Group(settings, len(same), tuple(row["validation_accuracy"] for row in same if _has(row)))
        for settings, same in shared
    ]
    return sorted(found, key=lambda g: -g.mean) if any(group.seeds > 1 for group in found) else []


def by_cell(cells: Sequence[Cell], rows: Sequence[Row], file: Path) -> Lines:
    """The axes, RESULTS and the file of the grid; the best validation accuracy first, cells without one last."""
    axes = list(dict.fromkeys(name for cell in cells for name in cell.settings))
    pairs = sorted(zip(cells, rows, strict=True), key=lambda pair: -pair[1].get("validation_accuracy", -1.0))
    lines = [[cell.settings.get(n, "") for n in axes] + [row.get(n, "") for n in RESULTS] for cell, row in pairs]
    return [*axes, *RESULTS, "file"], [[*map(str, line), str(file.resolve())] for line in lines]


def by_seeds(found: Sequence[Group]) -> Lines:
    """The axes but the seed; seeds asked for and finished; mean and standard deviation of validation accuracy."""
    axes = list(dict.fromkeys(name for group in found for name in group.settings))
    lines = []
    for group in found:
        mean = f"{group.mean:.4f}" if group.values else ""
        sd = "" if group.sd is None else f"{group.sd:.4f}"
        settings = [str(group.settings.get(name, "")) for name in axes]
        lines.append([*settings, str(group.seeds), str(len(group.values)), mean, sd])
    return [*axes, "seeds", "finished", "mean", "sd"], lines


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
    known = [(row["validation_accuracy"], n) for row, n in zip(rows, pictures, strict=True) if _has(row)]
    if not known:
        return ""
    best, n = max(known)
    low, high = wilson(best, n)
    near = sum(value >= low for value, _ in known) - 1
    return f"; the best has {best:.4f} ({low:.4f} to {high:.4f} on {n:,} pictures); {near} other cell(s) lie in that"


def _has(row: Row) -> bool:
    return "validation_accuracy" in row
