"""The options of `python -m fer_bench.evaluate`, and which of them contradict each other."""

from __future__ import annotations

import argparse
from pathlib import Path

from fer_bench.cards import RECIPE_HELP
from fer_bench.errors import UserError
from fer_bench.options import not_negative
from fer_bench.transforms import PASSES


def parser(description: str | None) -> argparse.ArgumentParser:
    """The command line, without a look at what it names."""
    made = argparse.ArgumentParser(prog="python -m fer_bench.evaluate", description=description)
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", action="store_true", help="every method that has weights")
    which.add_argument("--method", nargs="+", metavar="NAME")
    which.add_argument(
        "--transformers", nargs="+", metavar="MODEL",
        help="image classifiers of others: NAMESPACE/NAME[@REVISION] on the Hugging Face Hub, or a folder of one; "
        "NAME=MODEL names its row",
    )  # fmt: skip
    made.add_argument(
        "--emotions", metavar="NAMES",
        help="of one --transformers model: what each output means, with commas between, - for none",
    )  # fmt: skip
    made.add_argument(
        "--track", nargs="+", metavar="TRACK", help="tracks, folder:PATH or csv:PATH; default: all whose data is here"
    )
    made.add_argument("--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="default: leaderboard")
    made.add_argument("--recipe", help=RECIPE_HELP)
    made.add_argument("--seed", type=not_negative, help="default: 0; of --costs and --figures: all that stand")
    made.add_argument("--runs", type=Path, metavar="DIR", help="a training output folder to take weights from first")
    made.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    made.add_argument("--verified", action="store_true", help="mark the results as run by the maintainers")
    made.add_argument(
        "--tta", choices=list(PASSES), default="none",
        help="test-time augmentation, as a row of its own: flip answers for a face and its mirror image, tencrop for "
        "its corners, its middle and their mirror images",
    )  # fmt: skip
    made.add_argument("--robustness", action="store_true", help="also corrupted pictures (some 12,000 answers)")
    made.add_argument("--explanation", action="store_true", help="also how faithful Grad-CAM is (some 4,700 answers)")
    made.add_argument(
        "--resume", action="store_true", help="pass over rows whose results stand, as after an interrupted call"
    )
    standing_only = made.add_mutually_exclusive_group()
    standing_only.add_argument(
        "--costs", action="store_true", help="measure nothing but the costs of rows that stand, all in one run"
    )
    standing_only.add_argument(
        "--figures", action="store_true", help="run nothing: compute the figures of rows anew from their saved answers"
    )
    return made


def refuse_contradictions(arguments: argparse.Namespace) -> None:
    """Raise UserError for options that cannot be meant together; one would be passed over without a word."""
    if arguments.tta != "none" and (arguments.robustness or arguments.explanation):
        raise UserError("--robustness and --explanation are measured without --tta; leave it out, or them.")
    flags = ("robustness", "explanation", "verified", "resume", "tta") + (("runs",) if arguments.figures else ())
    idle = [f"--{name}" for name in flags if getattr(arguments, name) not in (False, "none", None)]
    if idle and (arguments.costs or arguments.figures):
        told = "--costs measures costs" if arguments.costs else "--figures computes figures"
        raise UserError(f"{told} alone, of rows that stand; leave out {' and '.join(idle)}.")
    theirs = ("recipe", "runs", "costs", "figures") if arguments.transformers else ()
    if idle := [f"--{name}" for name in theirs if getattr(arguments, name)]:
        raise UserError(f"--transformers judges a model as it was published; leave out {' and '.join(idle)}.")
