"""What a worker does, whichever engine started it: train one cell of a plan to its end."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fer_bench.cards import Recipe
from fer_bench.datasets import forbid_split
from fer_bench.errors import UserError
from fer_bench.grid import Plan
from fer_bench.methods import Method
from fer_bench.train import Run, TrainingError

LOG = "log.txt"


@dataclass(frozen=True)
class Work:
    """Called with a cell's number, from 0, it trains that cell. Plain data: it travels to other processes and machines.

    What training prints goes to log.txt in the cell's folder. A fault that another try would not mend at once is
    written down there as well; any other exception is raised, for the engine to try again.
    """

    plan: Plan
    folder: str
    """The working folder that relative paths are meant from."""
    environment: tuple[tuple[str, str], ...]
    """Variables that say where data and weights are."""
    threads: int | None = None
    """CPU threads of a cell; None leaves torch's own number."""

    def __call__(self, number: int) -> None:
        os.chdir(self.folder)
        os.environ.update(self.environment)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        cell = self.plan.cell(number)
        cell.folder.mkdir(parents=True, exist_ok=True)
        log = (cell.folder / LOG).open("a", buffering=1)
        with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}: process {os.getpid()} on {socket.gethostname()}")
            # Two sweeps over the same cells, one beside `train --grid`, or a worker that was given up too early: the
            # second waits for the first.
            with cell.held(), forbid_split(self.plan.track.test):
                if cell.finished():
                    return
                try:
                    cell.train(self.fit, TrainingError)
                except UserError as error:
                    print(error, file=sys.stderr)
                    cell.fail(str(error))
                except Exception:
                    traceback.print_exc()
                    raise

    def checkpoint(self, number: int) -> Any:
        """What submitit queues again when Slurm stops a job for time or for another's sake: the same, which resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number)

    def fit(self, method: Method, recipe: Recipe, options: Any, settings: Mapping[str, Any]) -> Path:
        """A `grid.Fit`: the run itself."""
        return Run(method, self.plan.track, recipe, options, self.plan.out, settings).fit()


def work_for(plan: Plan, threads: int | None = None) -> Work:
    """The plan's work, meant from this process's working folder and variables."""
    given = tuple((name, value) for name, value in os.environ.items() if name.startswith("FER_BENCH_"))
    return Work(plan, os.getcwd(), given, threads)
