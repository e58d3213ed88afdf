"""The command line of a sweep: `python -m fer_bench.sweep sweep.yaml --track fer2013 --engine auto`."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch

from fer_bench.checkpoints import stopped_as_by_hand
from fer_bench.datasets import forbid_split
from fer_bench.errors import UserError
from fer_bench.files import OutputError
from fer_bench.grid import plan, report, write_table
from fer_bench.infer import best_device
from fer_bench.methods import METHODS
from fer_bench.options import Options, check_output, minutes, not_negative, positive
from fer_bench.protocols import TRACKS, track_named
from fer_bench.registry import UnknownNameError
from fer_bench.sweep.engines import ENGINES, Board, Means, engine_named
from fer_bench.sweep.worker import work_for
from fer_bench.weights import as_begun


def arguments_from(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fer_bench.sweep", description=main.__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="the cells (YAML; see fer_bench.grid)")
    parser.add_argument("--track", default="fer2013", help="a track (default fer2013), folder:PATH or csv:PATH")
    parser.add_argument("--method", nargs="+", default=[], metavar="NAME", help="where the file names none")
    parser.add_argument("--recipe", help="where the file names none; default: the one on each method's card")
    parser.add_argument("--epochs", type=positive, metavar="N", help="where the file names none; else the recipe's")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N training pictures")
    parser.add_argument("--limit-validation", type=positive, metavar="N", help="select on at most N pictures")
    parser.add_argument("--seed", type=not_negative, default=0, help="where the file names none (default 0)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, mps")
    parser.add_argument("--stream", action=argparse.BooleanOptionalAction, help="from disk (default: above 4 GiB)")
    parser.add_argument("--max-minutes", type=minutes, metavar="M", help="of each cell; the next call gives it as many")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    parser.add_argument("--engine", default="auto", choices=["auto", *ENGINES], help="auto: ray if there, else process")
    parser.add_argument("--workers", type=positive, metavar="N", help="cells at a time (Ray, Slurm: as many as fit)")
    parser.add_argument("--cpus", type=positive, metavar="N", help="cores of a cell")
    parser.add_argument("--gpus", type=share, metavar="X", help="accelerators of a cell (default: 1 if there)")
    parser.add_argument("--slurm", nargs="+", default=[], metavar="KEY=VALUE", help="partition=gpu time=240 account=me")
    parser.add_argument("--dry-run", action="store_true", help="list the cells and what became of them; train nothing")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Train every cell of a grid in workers. Exit codes: 0 done, 1 failed or interrupted (resumable), 2 wrong use."""
    given = arguments_from(argv)
    options = Options(
        seed=given.seed, device=given.device, epochs=given.epochs, limit=given.limit,
        limit_validation=given.limit_validation, max_minutes=given.max_minutes, stream=given.stream,
    )  # fmt: skip
    try:
        track = track_named(as_begun(given.out, given.track))
        if track.name in TRACKS and track.trained_on != track.name:
            raise UserError(f"{track.name} is a track to test on only; train on {track.trained_on}.")
        if given.slurm and given.engine not in ("auto", "submitit"):
            raise UserError(f"--slurm goes with --engine submitit, not with --engine {given.engine}.")
        if not given.dry_run:
            check_output(given.out)
        means = means_from(given)
        with forbid_split(track.test):
            planned = plan(
                given.file, [METHODS[name] for name in given.method], track, given.recipe, options, given.out
            )
        board = Board(planned, planned.cells())
        todo = [number for number in range(len(board.cells)) if not board.finished(number)]
        done = len(board.cells) - len(todo)
        print(f"{given.file}: {len(board.cells)} cells, {done} of them finished before", file=sys.stderr)
        if given.dry_run:
            for number, cell in enumerate(board.cells, start=1):
                print(f"{number}: {cell.told()}: {cell.row()['ended']}")
            return 0
        if todo:
            name, engine = engine_named("submitit" if given.slurm else given.engine)
            cores = given.cpus or (threads(given.workers) if runs_here(name, given.slurm) else None)
            means = replace(means, cpus=cores or 1)
            if name == "process":  # the others' machines may have what this one has not
                refuse_absent(given.device)
                means = replace(means, devices=devices_for(given.device, given.gpus, given.workers))
            write_table(planned, board.cells)
            print(f"engine {name}", file=sys.stderr)
            with stopped_as_by_hand():
                engine(todo, work_for(planned, cores), board, means)
        return report(planned, board.cells)
    except (UserError, UnknownNameError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, OutputError) else 2
    except KeyboardInterrupt:
        print(f"\nstopped; {given.out} keeps the last checkpoints, the same command goes on from here", file=sys.stderr)
        return 1


def share(text: str) -> float:
    """An argparse type: how many accelerators, whole ones or a part of one."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number, 0 or more, not {text}")
    return value


def refuse_absent(device: str) -> None:
    """Raise UserError for a device that this machine has not, without taking memory of one that it has."""
    number = torch.cuda.device_count()
    if device not in (*(["cuda"] if number else []), *(f"cuda:{index}" for index in range(number))):
        best_device(device)


def means_from(given: argparse.Namespace) -> Means:
    """What the command line gives the cells. Raises UserError for a --slurm that is not KEY=VALUE."""
    for pair in given.slurm:
        if "=" not in pair.strip("="):
            raise UserError(f"--slurm takes KEY=VALUE, such as partition=gpu, not {pair!r}.")
    pairs = [pair.split("=", 1) for pair in given.slurm]
    slurm = tuple((key, int(value) if value.isdigit() else value) for key, value in pairs)
    wanted = given.device == "auto" or given.device.startswith("cuda")
    gpus = float(torch.cuda.is_available() and wanted) if given.gpus is None else given.gpus
    return Means(given.workers, given.cpus or 1, gpus, slurm)


def devices_for(device: str, gpus: float | None, workers: int | None) -> tuple[str, ...]:
    """What child processes of this machine share, given --device, --gpus and --workers; () where there is one choice.

    Raises UserError where that many workers cannot have that many accelerators each.
    """
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    cuda = tuple(f"cuda:{index}" for index in range(count))
    if gpus is None:
        return cuda
    if gpus == 0:
        if device not in ("auto", "cpu"):
            raise UserError(f"--gpus 0 leaves no cell the device {device}; leave one of the two out.")
        return ("cpu",)
    if gpus > 1:
        raise UserError(f"a cell trains on one accelerator at most, so that --gpus {gpus:g} gains nothing; give 1.")
    there = count or int(device.startswith("cuda") or best_device(device).type != "cpu")
    if (workers or 1) > there * math.floor(1 / gpus + 1e-9):
        raise UserError(
            f"{workers or 1} cell(s) at a time cannot have {gpus:g} of an accelerator each, for there are {there}; "
            "give fewer --workers, less --gpus or another --device."
        )
    return cuda


def runs_here(engine: str, slurm: list[str]) -> bool:
    """Whether an engine's workers share this machine's cores; no cluster's do. slurm: what --slurm gives."""
    if engine == "ray":
        return not os.environ.get("RAY_ADDRESS")
    return engine == "process" or (not slurm and shutil.which("srun") is None)


def threads(workers: int | None) -> int | None:
    """Each of several workers' share of this machine's cores; None where nothing has to be shared."""
    return max(1, (os.cpu_count() or 1) // workers) if workers and workers > 1 else None


if __name__ == "__main__":
    sys.exit(main())
