"""Grid search over recipes, methods and their options: `python -m fer_bench.train --grid grid.yaml --track fer2013`.

The file is a mapping of axes to values (or a list of such mappings, one grid after the other, for methods with
different options); every combination is one cell, an ordinary training run in a folder of its own under --out. This is
P2's Table 2 (its one dropout rate, .5, is what its networks have):

    method: sep_cnn
    optimizer: sgd
    lr: [0.1, 0.01, 0.001, 0.0001]
    batch_size: [8, 16, 32, 64]
    epochs: [10, 20, 30, 40]
    patience: [0, 5]               # early stopping off and on
    augmentation: [true, false]    # the recipe's own, and none

The axes are `method`, `recipe` (what the other axes change: common-v1 or paper), `seed`, `limit`, `limit_validation`,
every field of `cards.Recipe`, `augmentation.FIELD` of `cards.Augmentation`, and what a method's network takes
(`layers` and `kernel` of small_cnn, say). What the file leaves open comes from the command line, then from the recipe.

A number may be drawn from a range, as many times as `random` says, each time under every `seed`:

    method: small_cnn
    lr: {loguniform: [1e-4, 1e-2]}  # or uniform; {integers: [2, 5]} for whole numbers, ends included
    batch_size: [64, 128]           # lists are drawn from too
    seed: [0, 1, 2]                 # a second table has each setting's mean and standard deviation over its seeds
    random: {samples: 20, seed: 0}  # the same two numbers draw the same cells

Calling it again goes on: finished cells are kept, a killed one resumes at its last checkpoint, one that failed is tried
again, and one that ran out of --max-minutes (which each cell has to itself) gets as many again. Called twice at once,
or beside a sweep, each cell is trained by one of them. The table, sorted by validation accuracy, is printed as Markdown
and written as CSV to --out after every cell, under the file's name and what the command line changes: its track where
that is not fer2013, and --limit 20, say, as NAME-limit-20.csv. The test split is out of reach. `fer_bench.sweep` trains
the same cells in worker processes, on a Ray cluster or under Slurm.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fer_bench.cards import Track
from fer_bench.datasets import forbid_split
from fer_bench.datasets.base import ForbiddenSplitError
from fer_bench.errors import DataError
from fer_bench.files import OutputError
from fer_bench.grid.axes import combinations, method_options, read_axes, yaml_axes
from fer_bench.grid.cells import Cell, Fit, Plan, cell_of, plan
from fer_bench.grid.table import groups, report, seeds_verdict, verdict, wilson, write_table
from fer_bench.methods import Method

__all__ = [
    "Cell", "Fit", "Plan", "cell_of", "combinations", "groups", "method_options", "plan", "read_axes", "report",
    "search", "seeds_verdict", "verdict", "wilson", "write_table", "yaml_axes",
]  # fmt: skip


def search(
    file: Path,
    methods: Sequence[Method],
    track: Track,
    recipe: str | None,
    options: Any,
    out: Path,
    fit: Fit,
    failure: type[Exception],
) -> int:
    """Train every cell that is not finished yet, in this process, write and print the table. Returns the exit code.

    methods, recipe and options are what the file leaves open. failure: what `fit` raises where a loss is not finite;
    such a cell ends so for good, and the others go on, as they do where a library fails. A cell that another process
    trains is passed over, and waited for at the end. 0: every cell was run and one has weights; 1: none has, one
    failed in a way that another call may mend, or it was stopped by hand. Raises UserError and DataError before
    anything is trained, for every fault of the file; DataError, OutputError and ForbiddenSplitError, which concern all
    cells, later too.
    """
    with forbid_split(track.test):
        planned = plan(file, methods, track, recipe, options, out)
        cells = planned.cells()
        done = sum(cell.finished() for cell in cells)
        print(f"{file}: {len(cells)} cells, {done} of them finished before", file=sys.stderr)
        try:
            todo: list[tuple[int, Cell]] = list(enumerate(cells, start=1))
            for wait in (False, True):
                others = []
                for number, cell in todo:
                    write_table(planned, cells)
                    if cell.finished():
                        continue
                    told = f"cell {number} of {len(cells)}: {cell.told()}"
                    with cell.held(wait) as mine:
                        if not mine:
                            print(f"{told}: another process trains it, so the others come first", file=sys.stderr)
                            others.append((number, cell))
                        elif not cell.finished():
                            print(told, file=sys.stderr)
                            _train(cell, fit, failure)
                todo = others
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from here", file=sys.stderr)
            return 1
        finally:
            write_table(planned, cells)
        return report(planned, cells)


def _train(cell: Cell, fit: Fit, failure: type[Exception]) -> None:
    """As `Cell.train`; what a library fails with is this cell's failure too, told with where it happened."""
    try:
        cell.train(fit, failure)
    except (ForbiddenSplitError, DataError, OutputError):
        raise
    except Exception as error:
        traceback.print_exc()
        cell.fail(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    gc.collect()  # what a failed run held on the device is the next one's
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
