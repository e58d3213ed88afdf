"""What the command line may change about a training run."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from fer_bench.errors import UserError
from fer_bench.protocols import RECIPES

LARGE = 2**32
"""Seeds stay below this: what torch draws from, a seed and an epoch's number in one, must fit into 64 bits."""


@dataclass(frozen=True)
class Options:
    """What the command line may change about a run."""

    seed: int = 0
    device: str = "auto"
    epochs: int | None = None
    """Other than the recipe's; the schedule is fitted to them and the result says so."""
    limit: int | None = None
    """At most so many training pictures, spread evenly over the split."""
    limit_validation: int | None = None
    """Select on at most so many validation pictures, where even looking at them all is dear; the result says so."""
    patience: int | None = None
    """Other than the recipe's; 0 switches early stopping off."""
    max_minutes: float | None = None
    resume: bool = False
    start_from: str | None = None
    """A weight file of the same method, or "shipped": train on from it instead of from nothing; the result says so."""
    stream: bool | None = None
    """Read training pictures from disk as they are needed; None does so where they would take more than 4 GiB."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < LARGE:
            raise UserError(f"a seed must be 0 or more and below {LARGE}, not {self.seed}.")


def positive(text: str) -> int:
    """An argparse type: an integer above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def not_negative(text: str) -> int:
    """An argparse type: an integer, 0 or more."""
    value = int(text)
    if not 0 <= value < LARGE:
        raise argparse.ArgumentTypeError(f"must be 0 or more and below {LARGE}, not {value}")
    return value


def minutes(text: str) -> float:
    """An argparse type: a number of minutes above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def check_output(out: Path) -> None:
    """Raise UserError where no folder can be made at `out`: wrong use, which a disk that fills up later is not."""
    above = next(str(place) for place in (out, *out.absolute().parents) if os.path.exists(place))
    if not (os.path.isdir(above) and os.access(above, os.W_OK)):
        why = "cannot be written to" if os.path.isdir(above) else "is a file"
        raise UserError(f"{out}: no folder can be made here ({above} {why}); give another --out.")


def arguments_from(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fer_bench.train", description="Train methods on a track.")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--method", nargs="+", metavar="NAME", help="methods to train, one after the other")
    chosen.add_argument("--all", action="store_true", help="every method")
    chosen.add_argument(
        "--missing", action="store_true", help="every method without weights of its full budget, cheapest first"
    )
    parser.add_argument("--grid", type=Path, metavar="FILE", help="every cell of a grid (YAML; see fer_bench.grid)")
    parser.add_argument("--track", default="fer2013", help="a track (default fer2013), folder:PATH or csv:PATH")
    parser.add_argument("--recipe", help=f"{', '.join(RECIPES)} or paper; default: the one on each method's card")
    parser.add_argument(
        "--epochs", type=positive, metavar="N", help="other than the recipe's (one per stage at least); the result says"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N training pictures")
    parser.add_argument("--limit-validation", type=positive, metavar="N", help="select on at most N pictures")
    parser.add_argument(
        "--patience", type=not_negative, metavar="N", help="stop after N epochs without a better validation; 0: never"
    )
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help="of weights and order (default 0)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, where there is one")
    parser.add_argument(
        "--start-from",
        metavar="FILE",
        help="fine-tune: from a method's model.safetensors, `shipped` for its own, or the hash of weights that a row "
        "went on from (12 digits or more, as its card tells)",
    )
    parser.add_argument("--stream", action=argparse.BooleanOptionalAction, help="from disk (default: above 4 GiB)")
    parser.add_argument(
        "--max-minutes", type=minutes, metavar="M", help="end each method cleanly after M minutes, best weights kept"
    )
    parser.add_argument(
        "--total-minutes", type=minutes, metavar="M", help="end after M minutes, however many methods are left"
    )
    parser.add_argument(
        "--at-once",
        type=positive,
        default=1,
        metavar="N",
        help="train N methods at the same time, each in a process of its own (default 1)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    given = parser.parse_args(argv)
    if not (given.method or given.all or given.missing or given.grid):
        parser.error("one of the arguments --method --all --missing --grid is required")
    if given.grid is not None and given.total_minutes is not None:
        parser.error("--total-minutes is for single runs; --max-minutes is that of each cell of --grid")
    if given.grid is not None and given.start_from is not None:
        parser.error("--start-from is for single runs; the cells of --grid start from nothing")
    if given.grid is not None and given.at_once > 1:
        parser.error(
            "--at-once is for single runs; python -m fer_bench.sweep FILE --workers N is for the cells of a grid"
        )
    return given


def arguments_of(given: argparse.Namespace, method: str, device: str, total: float | None) -> list[str]:
    """The command line that trains one method of those that `given` asks for, on `device`, within `total` minutes."""
    values = vars(given) | {"method": method, "device": device, "total_minutes": total}
    argv: list[str] = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if name in ("all", "missing", "at_once") or value is None or (value is False and name != "stream"):
            continue
        if isinstance(value, bool):
            argv.append(flag if value else flag.replace("--", "--no-"))
        else:
            argv += [flag, str(value)]
    return argv
