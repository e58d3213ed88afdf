"""python -m fer_bench.submissions: check, evaluate, export, template and queue."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from fer_bench.cards import RECIPE_HELP
from fer_bench.errors import BrokenFilesError, UserError
from fer_bench.files import OutputError
from fer_bench.registry import UnknownNameError
from fer_bench.submissions.manifest import NAME
from fer_bench.submissions.problems import Limits
from fer_bench.submissions.sandbox import RefusedError, plain

WEEK = 7 * 24 * 3600
ON_THE_HUB = "hub:NAMESPACE/NAME@REVISION (40 hex digits)"


def main(argv: list[str] | None = None) -> int:
    """Check, evaluate or export a submission. Exit codes: 0 done, 1 refused or failed, 2 wrong use or nothing to do."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (UserError, UnknownNameError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, OutputError) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fer_bench.submissions", description=main.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    one = command("check", _check, "say everything that is wrong with a submission")
    one.add_argument("path", metavar="DIR", help=f"the submission's folder, a .zip of it, or {ON_THE_HUB}")
    one.add_argument("--on", metavar="DATA", help="a data set, folder:PATH or csv:PATH to try it on; default: rendered")
    limit = Limits().seconds
    one.add_argument("--seconds", type=_seconds, default=limit, help="the model's time; default: %(default)g")

    one = command("evaluate", _evaluate, "measure a submission and write its result")
    one.add_argument("path", metavar="DIR", help=f"the submission's folder, or {ON_THE_HUB}")
    one.add_argument("--track", nargs="+", metavar="TRACK", help="default: the tracks that its submission.yaml names")
    one.add_argument("--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="default: leaderboard")
    one.add_argument("--replace", action="store_true", help="rows of another model under this name may be overwritten")
    one.add_argument("--verified", action="store_true", help="mark the results as run by the maintainers")
    one.add_argument("--seconds", type=_seconds, default=3600, help="the model's time per track; default: %(default)g")

    one = command("export", _export, "write a model with its weights as ONNX, in a submission's folder")
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("method", metavar="METHOD", nargs="?", help="a method with its weights")
    which.add_argument(
        "--transformers", metavar="MODEL", help="NAMESPACE/NAME@REVISION of the Hub, a folder, or NAME=MODEL"
    )
    one.add_argument(
        "--emotions", metavar="LIST", help="of --transformers: what each output means, with commas between, - for none"
    )
    one.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="a folder that is new or empty")
    one.add_argument("--track", help="whose weights; default: fer2013")
    one.add_argument("--recipe", help=RECIPE_HELP)
    one.add_argument("--seed", type=int, help="of the weights; default: 0")
    one.add_argument("--runs", type=Path, metavar="DIR", help="take the weights from this training output folder")

    command("template", _template, "print an annotated submission.yaml")
    one = command("queue", _queue, "list the submissions that wait")
    one.add_argument("root", type=Path, nargs="?", default=Path("leaderboard/submissions"))
    one.add_argument("--check", action="store_true", help="check each that has no result yet, those on the Hub too")
    return parser


def _seconds(text: str) -> float:
    """A time limit, for argparse."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= WEEK:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, above 0 and up to a week ({WEEK:,})")


def _check(arguments: argparse.Namespace) -> int:
    from fer_bench.submissions.checks import check, report, validate
    from fer_bench.submissions.remote import located, meant

    limits, place = Limits(seconds=arguments.seconds), located(arguments.path)
    if not place.folder.exists():
        text = "there is no such folder; give the submission's folder or a .zip of it."
        raise UserError(f"{arguments.path}: {text}{meant(arguments.path)}")
    faces = None
    if arguments.on:
        from fer_bench.datasets import load_dataset

        faces = load_dataset(arguments.on, "test")
    if place.folder.is_dir():
        found = report([*place.problems, *check(place.folder, faces=faces, limits=limits)])
    else:
        found = validate(place.folder, limits, faces)
    for problem in found.problems:
        print(f"- {plain(problem)}")
    print(f"{plain(arguments.path)}: {found.summary}")
    return 0 if found.ok else 1


def _evaluate(arguments: argparse.Namespace) -> int:
    from fer_bench.files import check_committed
    from fer_bench.results import headline, read_result
    from fer_bench.submissions.checks import report
    from fer_bench.submissions.judging import evaluate_submission
    from fer_bench.submissions.remote import SCHEME, meant

    if not str(arguments.path).startswith(SCHEME) and not Path(arguments.path).exists():
        text = "there is no such folder; give the submission's folder."
        raise UserError(f"{arguments.path}: {text}{meant(arguments.path)}")
    if Path(arguments.path).is_file():
        raise UserError(f"{arguments.path}: this is a file; unpack it, and give the submission's folder.")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UserError(f"{arguments.out}: this is a file; give a folder to --out.")
    if arguments.verified:
        check_committed()
    limits = Limits(seconds=arguments.seconds)
    try:
        written = evaluate_submission(
            arguments.path, arguments.track, arguments.out, arguments.verified, limits, arguments.replace
        )
    except BrokenFilesError as error:  # the figures are written; the table lacks what others have broken
        print(f"error: {error}", file=sys.stderr)
        return 1
    except RefusedError as error:
        for problem in error.problems:
            print(f"- {plain(problem)}")
        print(f"{plain(arguments.path)}: {report(list(error.problems)).summary}")
        return 1
    if not written:
        print("nothing was evaluated.", file=sys.stderr)
        return 2
    for path in written:
        print(headline(read_result(path)), path, sep="\n")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from fer_bench.submissions.exporting import export_model, left_open

    if arguments.transformers:
        theirs = ("track", "recipe", "seed", "runs")
        if idle := [f"--{name}" for name in theirs if getattr(arguments, name) is not None]:
            raise UserError(f"--transformers takes a model as it was published; leave out {' and '.join(idle)}.")
        from fer_bench.classifiers import published

        (model,) = published([arguments.transformers], arguments.emotions)
    else:
        if arguments.emotions:
            raise UserError("--emotions says what the outputs of a --transformers model mean; leave it out.")
        from fer_bench.infer import load

        track, seed = arguments.track or "fer2013", arguments.seed or 0
        model = load(arguments.method, track, arguments.recipe, seed, runs=arguments.runs)
    out = export_model(model, arguments.out)
    print(out)
    if fields := left_open(out):
        print(
            f"{out / 'submission.yaml'}: fill in {', '.join(fields)}; the check refuses it until then.", file=sys.stderr
        )
    return 0


def _template(_: argparse.Namespace) -> int:
    from fer_bench.submissions.manifest import template

    print(template(), end="")
    return 0


def _shown(name: str) -> str:
    """A folder's name as a log may hold it: what is none of a submission's could be a command to the terminal or CI."""
    return name if NAME.fullmatch(name) else ascii(name)


def _queue(arguments: argparse.Namespace) -> int:
    from fer_bench.submissions.checks import queue, report

    if not arguments.root.is_dir():
        raise UserError(f"{arguments.root}: there is no such folder; give the one that holds the submissions.")
    waiting = queue(arguments.root)
    for item in waiting:
        print(f"{_shown(item.name):24} {', '.join(item.tracks) or '-':24} {plain(item.state)}")
    if not waiting:
        print(f"{arguments.root}: nothing waits here.")
    if not arguments.check or not waiting:
        return 0
    from fer_bench.submissions.remote import check_queue

    refused = 0
    for name, problems in check_queue(arguments.root).items():
        for problem in problems:
            print(f"- {plain(problem)}")
        print(f"{_shown(name)}: {report(problems).summary}")
        refused += bool(problems)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
