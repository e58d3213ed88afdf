"""Who runs the workers: Ray Tune, submitit (Slurm, or jobs on this machine), or child processes of our own.

Each engine is a function of the cells to train, the work, the board that is told what happens, and the means. It starts
a worker per cell, starts a dead one's cell anew up to RETRIES times, and returns when all have ended. KeyboardInterrupt
ends every worker that it started and goes on up.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from fer_bench.children import Child, as_child, context, least_busy
from fer_bench.errors import UserError
from fer_bench.grid import Cell, Plan, write_table
from fer_bench.sweep.worker import LOG, Work

RETRIES = 2
PAUSE = 0.1
"""Seconds between two looks at the workers."""
RAY_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",  # it would report to its makers
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # we have a table of our own
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ctrl-C ends a sweep here as with any other engine
}


@dataclass(frozen=True)
class Means:
    """What the cells may use."""

    workers: int | None = None
    """Cells at a time; None is one here, and as many as there is room for on Ray and Slurm."""
    cpus: int = 1
    """Cores of each cell, which Ray and Slurm set aside."""
    gpus: float = 0
    """Accelerators of each cell, likewise; Ray takes fractions."""
    slurm: tuple[tuple[str, str | int], ...] = ()
    """Slurm's own settings: partition, time, account, ..."""
    devices: tuple[str, ...] = ()
    """What child processes share evenly, as "cuda:0"; () leaves each to the plan's own."""


@dataclass
class Board:
    """What is told of a sweep while it runs: a line for every start and end, and the table after every end."""

    plan: Plan
    cells: list[Cell]
    attempts: Counter[int] = field(default_factory=Counter)

    def finished(self, number: int) -> bool:
        """Whether the cell needs no worker any more."""
        return self.cells[number].finished()

    def started(self, number: int) -> None:
        """A worker was asked for, or asked for again."""
        self.attempts[number] += 1
        again = f", try {self.attempts[number]} of {RETRIES + 1}" if self.attempts[number] > 1 else ""
        self._say(number, f"{self.cells[number].told()}{again}; see {self.cells[number].folder / LOG}")

    def retried(self, number: int, fault: str) -> None:
        """Its worker died, and there will be another."""
        self._say(number, f"its worker died ({fault})")

    def ended(self, number: int, fault: str = "") -> None:
        """Its last worker has ended. fault: what it died of, if it did."""
        cell = self.cells[number]
        if fault and not cell.finished():
            cell.fail(f"its worker died {self.attempts[number]} times, the last time {fault}")
        row = cell.row()
        accuracy = f", validation accuracy {row['validation_accuracy']:.4f}" if "validation_accuracy" in row else ""
        write_table(self.plan, self.cells)
        done = sum(cell.finished() for cell in self.cells)
        self._say(number, f"{row['ended']}{accuracy}; {done} of {len(self.cells)} cells are finished")

    def _say(self, number: int, text: str) -> None:
        print(f"cell {number + 1} of {len(self.cells)}: {text}", file=sys.stderr, flush=True)


class Handle(Protocol):
    """One worker on its way."""

    def done(self) -> bool:
        """Whether it has ended, well or not."""

    def fault(self) -> str:
        """What it died of; "" where it ended well."""

    def cancel(self) -> None:
        """End it now."""


def drive(
    numbers: Sequence[int], launch: Callable[[list[int]], list[Handle]], board: Board, workers: int, pause: float
) -> None:
    """Keep `workers` workers busy until every cell has ended; dead ones' cells go to the front of the queue again."""
    waiting, running = deque(numbers), dict[int, Handle]()
    try:
        while waiting or running:
            chosen = [waiting.popleft() for _ in range(min(len(waiting), workers - len(running)))]
            for number in chosen:
                board.started(number)
            if chosen:
                running |= dict(zip(chosen, launch(chosen), strict=True))
            for number, handle in list(running.items()):
                if handle.done():
                    del running[number]
                    fault = handle.fault()
                    if fault and board.attempts[number] <= RETRIES and not board.finished(number):
                        board.retried(number, fault)
                        waiting.appendleft(number)
                    else:
                        board.ended(number, fault)
            time.sleep(pause)
    finally:
        for handle in running.values():
            handle.cancel()


def in_processes(numbers: Sequence[int], work: Work, board: Board, means: Means) -> None:
    """A child process per cell, `means.workers` at a time (default one), each on the least busy of `means.devices`."""
    start = context("fer_bench.sweep.worker")
    started: list[tuple[str, BaseProcess]] = []

    def launch(chosen: list[int]) -> list[Handle]:
        handles: list[Handle] = []
        for number in chosen:
            started[:] = [(device, process) for device, process in started if process.is_alive()]
            device = least_busy(means.devices or (work.plan.options.device,), (taken for taken, _ in started))
            options = replace(work.plan.options, device=device)
            own = replace(work, plan=replace(work.plan, options=options))
            process = start.Process(target=_child, args=(own, number))
            process.start()
            started.append((device, process))
            handles.append(Child(process))
        return handles

    drive(numbers, launch, board, means.workers or 1, PAUSE)


def _child(work: Work, number: int) -> None:
    as_child(lambda: work(number))


@dataclass(frozen=True)
class Job:
    """A job of submitit."""

    job: Any

    def done(self) -> bool:
        return self.job.done()

    def fault(self) -> str:
        try:
            error = self.job.exception()
        except Exception as unfinished:  # submitit's own, for a job that left no result
            error = unfinished
        return "" if error is None else f"{self.job.state}: {str(error).strip().splitlines()[-1]}"

    def cancel(self) -> None:
        self.job.cancel()


def in_jobs(numbers: Sequence[int], work: Work, board: Board, means: Means) -> None:
    """A job per cell through submitit: an array of Slurm's where there is Slurm, else one process after the other.

    Raises UserError where submitit or Slurm is missing or refuses a setting.
    """
    submitit = needed("submitit")
    folder = board.plan.out / f"{board.plan.name}-jobs"
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm" if means.slurm else None)
        executor.update_parameters(
            name=f"sweep-{board.plan.name}", timeout_min=24 * 60, cpus_per_task=means.cpus,
            gpus_per_node=math.ceil(means.gpus) or None, **{f"slurm_{name}": value for name, value in means.slurm},
        )  # fmt: skip
    except (NameError, RuntimeError, AssertionError) as error:
        raise UserError(f"submitit refuses the settings: {str(error).strip().splitlines()[0]}") from None
    slurm = executor.cluster == "slurm"
    workers = means.workers or (len(numbers) if slurm else 1)

    def launch(chosen: list[int]) -> list[Handle]:
        with executor.batch():
            jobs = [executor.submit(work, number) for number in chosen]
        return [Job(job) for job in jobs]

    drive(numbers, launch, board, workers, 10 if slurm else PAUSE)


def on_ray(numbers: Sequence[int], work: Work, board: Board, means: Means) -> None:
    """A trial per cell on Ray Tune: on the cluster that RAY_ADDRESS names or that runs here, else on a Ray of our own.

    Raises UserError where Ray Tune is missing.
    """
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    ray, tune = needed("ray"), needed("ray.tune")

    class Told(tune.Callback):
        """Hands Ray's news on to the board."""

        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            board.started(trial.config["cell"])

        def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            board.retried(trial.config["cell"], "Ray lost it")

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            board.ended(trial.config["cell"])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            board.ended(trial.config["cell"], "on Ray")

    def trial(config: dict[str, int]) -> None:
        work(config["cell"])

    own = not ray.is_initialized()
    if own:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
    try:
        tune.Tuner(
            tune.with_resources(trial, {"cpu": means.cpus, "gpu": means.gpus}),
            param_space={"cell": tune.grid_search(list(numbers))},
            tune_config=tune.TuneConfig(max_concurrent_trials=means.workers),
            run_config=tune.RunConfig(
                name=f"{board.plan.name}-ray", storage_path=str(board.plan.out.resolve()), verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES), callbacks=[Told()],
            ),
        ).fit()  # fmt: skip
    finally:
        if own:
            ray.shutdown()


def needed(module: str) -> Any:
    """An optional module. Raises UserError, with the mend, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"{module} is missing: pip install 'fer_bench[sweep]', or use --engine process.") from None


def engine_named(name: str) -> tuple[str, Engine]:
    """The engine and its name; "auto" is Ray Tune where it can be imported, else child processes."""
    if name == "auto":
        try:
            needed("ray.tune")
            name = "ray"
        except UserError:
            name = "process"
    return name, ENGINES[name]


Engine = Callable[[Sequence[int], Work, Board, Means], None]
ENGINES: dict[str, Engine] = {"ray": on_ray, "submitit": in_jobs, "process": in_processes}
