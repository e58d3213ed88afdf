"""Several methods trained one after the other: one that fails does not take the others with it, nor all of the time."""

from __future__ import annotations

import gc
import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fer_bench.cards import Recipe, Track
from fer_bench.datasets.base import ForbiddenSplitError
from fer_bench.datasets.stream import to_stream
from fer_bench.distributed import Processes
from fer_bench.errors import DataError, UserError
from fer_bench.files import OutputError
from fer_bench.infer import best_device
from fer_bench.methods.base import Method
from fer_bench.options import Options
from fer_bench.start import SHIPPED, start_file

NO_MEMORY = "Use a device with more memory, or a smaller batch_size (--grid)."
"""What to do where a device has too little."""
Fit = Callable[[Method, Recipe, Options], object]
"""Trains one method to its end, or to that of the options' `max_minutes`."""


def train_each(
    methods: Sequence[tuple[Method, Recipe]],
    options: Options,
    total_minutes: float | None,
    fit: Fit,
    failure: type[Exception],
    processes: Processes,
) -> int:
    """Train each method under its recipe. Returns the exit code: 1 where one of them failed.

    total_minutes: of all together; each gets what the others before it have left, and `options.max_minutes` at most.
    Those for which nothing is left are named on standard error. failure: what `fit` raises where a loss is not finite.
    What goes wrong with one of several methods is told on standard error, and the next one's turn comes. What concerns
    them all is raised: DataError, OutputError, a look at the test split, and anything where there is one method or
    several processes, of which the others wait for this one.
    """
    deadline = math.inf if total_minutes is None else time.monotonic() + total_minutes * 60
    alone = len(methods) == 1 or processes.world > 1
    failed, left_out = 0, []
    for method, recipe in methods:
        name, minutes = method.card.name, (deadline - time.monotonic()) / 60
        if processes.decides(minutes <= 0):
            left_out.append(name)
            continue
        if minutes < (math.inf if options.max_minutes is None else options.max_minutes):
            given = replace(options, max_minutes=minutes)
        else:
            given = options
        try:
            fit(method, recipe, given)
        except (failure, UserError) as error:
            if alone or isinstance(error, (DataError, OutputError)):
                raise
            told = str(error)
        except Exception as error:  # a defect of ours, or of a library on this device
            if alone or isinstance(error, ForbiddenSplitError):
                raise
            short = isinstance(error, torch.OutOfMemoryError | MemoryError)
            told = f"{error}\n{NO_MEMORY}" if short else traceback.format_exc()
        else:
            continue
        print(f"{name}: {told}", file=sys.stderr)
        failed += 1
        gc.collect()  # what the failed run held on the device is the next one's
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if left_out and processes.is_first:
        print(f"no time was left for {', '.join(left_out)}; go on with --resume", file=sys.stderr)
    if failed:
        print(f"{failed} of {len(methods)} methods were not trained", file=sys.stderr)
    return 1 if failed else 0


def check_all(methods: Sequence[tuple[Method, Recipe]], options: Options, track: Track) -> None:
    """Raise UserError for what would fail alike with every method, before the first one is trained."""
    best_device(options.device)
    if options.start_from not in (None, SHIPPED) and methods:
        start_file(options.start_from, methods[0][0], track, methods[0][1].name)
    if options.stream:
        to_stream(track.dataset, track.train, True)
