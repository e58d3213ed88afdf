"""python -m fer_bench.predict: scores for pictures, folders and clips of one's own.

One row per face and method: filepath, face (from 1; 0 where none was found or looked for: then the picture's largest
centred square was taken), time (seconds from the clip's start; empty for pictures), method, emotion (the likeliest),
then one column per emotion with its probability, then left, top, right, bottom of the face in pixels (empty for face
0). The emotions are all that the methods of a run know; where a method does not know one, its cell is empty.
Probabilities of a row sum to 1, up to their rounding to six digits.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import chain, groupby, islice
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from fer_bench import scoring
from fer_bench.cams import check_cam
from fer_bench.errors import UserError
from fer_bench.faces import UnreadablePictureError, detect_faces, open_picture, yunet_file
from fer_bench.files import OutputError, label
from fer_bench.infer import Model, best_device, load
from fer_bench.inputs import find_inputs, left_out, weights_options
from fer_bench.methods import METHODS
from fer_bench.protocols import track_named
from fer_bench.registry import UnknownNameError
from fer_bench.runtime import RUNTIMES, need_onnx, onnx_model
from fer_bench.scores import FORMATS, Row, ScoreFile, columns
from fer_bench.scoring import PER_SECOND, Prepared, annotate_clip, emotions_of, score_clip, score_picture
from fer_bench.video import UnreadableClipError, check_clip_name, is_clip
from fer_bench.weights import sha256

__all__ = ["annotate_clip", "columns", "emotions_of", "find_inputs", "score_clip", "score_files", "score_picture"]

GROUP = 32
"""Pictures that are scored, and written, together; while they are, as many more are opened and their faces found."""


def in_groups(paths: Sequence[Path]) -> list[list[Path]]:
    """What is scored and written together, in order: up to GROUP pictures, or one clip."""
    groups: list[list[Path]] = []
    for clip, run in groupby(paths, is_clip):
        members = list(run)
        step = 1 if clip else GROUP
        groups += [members[start : start + step] for start in range(0, len(members), step)]
    return groups


# The command --------------------------------------------------------------------------------------------------------


def what_makes_the_rows(models: Sequence[Model], arguments: argparse.Namespace) -> dict:
    """All that the rows of a run depend on, by name, as JSON has it; for the messages of `ScoreFile`.

    Folders and globs are named and not listed, so that a resumed run scores what came to them since. The device is left
    out: it changes last digits only, and where a GPU is gone a run should go on without. The working folder is told
    from the output's, so that both may be moved together.
    """
    yunet = None if arguments.no_detect else yunet_file()
    every = None if arguments.video or arguments.representative else PER_SECOND
    return {
        "inputs": arguments.inputs,
        "working folder": None if all(map(os.path.isabs, arguments.inputs)) else _home(arguments.out),
        "--method": [model.name for model in models],
        **{f"weights of {model.name}": model.record.get("sha256") for model in models},
        "--no-detect": arguments.no_detect,
        "face detector": sha256(yunet) if yunet else None,
        "--per-second": arguments.per_second or every,
        "--limit": arguments.limit,
        "--representative": arguments.representative,
        "--runtime": arguments.runtime,
    }


def _home(out: Path | None) -> str:
    """The working folder as seen from the output's."""
    return os.path.relpath(os.getcwd(), os.path.dirname(os.path.abspath(out)) if out else os.getcwd())


def score_files(
    paths: Sequence[Path], models: Sequence[Model], output: ScoreFile | None, arguments: argparse.Namespace
) -> tuple[int, list[str]]:
    """Score every file. Returns the number of rows written, and one sentence per file that was not read whole."""
    written, problems, groups, whole = 0, [], in_groups(paths), 0
    done = output.start([[label(path) for path in group] for group in groups]).done if output else set()
    if output and output.unsure:
        doubt = "nothing beside it says that its rows were made with these options; if not, leave out --resume."
        print(f"{output.path}: {doubt}", file=sys.stderr)

    def read(path: Path) -> Prepared | str:
        try:
            return scoring.prepare(open_picture(path), label(path), models, not arguments.no_detect)
        except UnreadablePictureError as error:
            return str(error)

    def take(rows: list[Row]) -> None:
        nonlocal written, whole
        written += len(rows)
        whole += sum(row["face"] == 0 for row in rows)
        if output:
            output.add(rows)

    with (
        output or contextlib.nullcontext(),
        ThreadPoolExecutor(arguments.workers) as pool,
        tqdm(total=len(paths), unit="file", disable=None, smoothing=0.05) as bar,
    ):
        left = ([path for path in group if label(path) not in done] for group in groups)
        bar.update(len(paths) - sum(label(path) not in done for path in paths))
        for group, answers in _read_ahead(filter(None, left), read, pool):
            if is_clip(group[0]):
                _score_clip_file(group[0], models, take, arguments, problems.append, bar)
            else:
                prepared = list(answers)
                problems += [one for one in prepared if isinstance(one, str)]
                rows = scoring.score_prepared([one for one in prepared if isinstance(one, Prepared)], models)
                take(list(chain.from_iterable(rows)))
            bar.update(len(group))
    if whole and not arguments.no_detect:
        told = "the middle square of the picture was taken, which says little unless it is one"
        print(f"no face was found for {whole:,} of {written:,} rows (face 0): {told}.", file=sys.stderr)
    return written, problems


def _read_ahead(
    groups: Iterable[list[Path]], read: Callable[[Path], Prepared | str], pool: Executor
) -> Iterator[tuple[list[Path], Iterator[Prepared | str]]]:
    """Each group and what `read` gives for its pictures, which the pool begins with one group before its turn.

    So finding faces and the networks keep the cores busy together, and no more than two groups are in memory.
    """
    before = None
    for group in groups:
        now = group, iter(()) if is_clip(group[0]) else pool.map(read, group)
        if before is not None:
            yield before
        before = now
    if before is not None:
        yield before


def _score_clip_file(
    path: Path,
    models: Sequence[Model],
    take: Callable[[list[Row]], object],
    arguments: argparse.Namespace,
    complain: Callable[[str], object],
    bar: tqdm,
) -> None:
    """Hand on a clip's rows as they come; a problem becomes a sentence."""

    def show(fraction: float) -> None:
        bar.set_postfix_str(f"{path.name}: {fraction:.0%}" if fraction < 1 else "")

    detect, workers = not arguments.no_detect, arguments.workers
    rate, limit, count = arguments.per_second, arguments.limit, arguments.representative
    try:
        if arguments.video:
            first, *others = models
            video = arguments.video
            annotate_clip(path, video, first, rate, limit, arguments.cam, show, detect, others, take, workers, complain)
        else:
            rows = score_clip(path, models, rate or PER_SECOND, limit, show, detect, count, workers, complain)
            while some := list(islice(rows, GROUP)):
                take(some)
    except UnreadableClipError as error:
        complain(str(error))


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise ValueError
    return value


def _count(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


_positive.__name__, _count.__name__ = "positive number", "positive whole number"  # argparse puts these in its messages


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fer_bench.predict", description=main.__doc__)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="picture, clip, folder (with all below it) or glob")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=".csv, .jsonl or .parquet")
    parser.add_argument("--method", nargs="+", default=["small_cnn"], metavar="NAME", help="default: small_cnn")
    parser.add_argument(
        "--no-detect", action="store_true", help="the pictures are faces already: use each (its middle square)"
    )
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run of this command ended")
    clips = parser.add_argument_group("clips")
    clips.add_argument(
        "--per-second", type=_positive, metavar="N",
        help=f"frames scored per second; default: {PER_SECOND:g}, with --video every frame",
    )  # fmt: skip
    clips.add_argument("--representative", type=_count, metavar="N", help="score the N most representative frames only")
    clips.add_argument("--limit", type=_count, metavar="N", help="score at most N frames of each clip")
    clips.add_argument("--video", type=Path, metavar="FILE.mp4", help="write the clip with boxes and emotions drawn in")
    clips.add_argument("--cam", metavar="NAME", help="with --video: lay this class activation map over each face")
    weights = weights_options(parser)
    weights.add_argument(
        "--runtime", choices=RUNTIMES, default="torch",
        help="what runs the networks: torch (default), or ONNX Runtime on the CPU, which needs fer_bench[onnx]",
    )  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument(
        "--workers", type=_count, default=min(4, cores), metavar="N", help="threads that open pictures and find faces"
    )
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """UserError for options that contradict each other and for places that cannot be written to.

    All that can be told beforehand is: once scoring begins, an earlier file of scores is gone.
    """
    if not arguments.out and not arguments.video:
        raise UserError("give -o FILE for the scores, --video FILE.mp4 for an annotated clip, or both.")
    if arguments.out and arguments.out.suffix not in FORMATS:
        raise UserError(f"{arguments.out}: scores are written as {', '.join(FORMATS)}; give a name that ends so.")
    if arguments.video:
        check_clip_name(arguments.video)
    for place, option in ((arguments.out, "-o"), (arguments.video, "--video")):
        if place and place.is_dir():
            raise UserError(f"{place}: this is a folder; give a file to {option}.")
        if place and place.exists() and not place.is_file():
            raise UserError(f"{place}: this is a pipe or a device; give a file to {option}.")
    if arguments.video and arguments.out and _same(arguments.video, arguments.out):
        raise UserError(f"{arguments.video}: this is the file of scores too; give --video another name.")
    if arguments.representative and (arguments.per_second or arguments.limit or arguments.video):
        raise UserError("--representative chooses the frames itself: leave out --per-second, --limit and --video.")
    if arguments.cam and not arguments.video:
        raise UserError("--cam is drawn into a clip: give --video FILE.mp4 too.")
    if arguments.runtime == "onnx" and (arguments.cam or arguments.device not in ("auto", "cpu")):
        raise UserError("ONNX Runtime gives no gradients and runs on the CPU here: leave out --cam and --device.")
    if arguments.video and arguments.resume:
        raise UserError("--video is written in one go: leave out --resume.")
    if arguments.resume and not arguments.out:
        raise UserError("--resume goes on with a file of scores: give -o FILE.")
    if arguments.video:
        above = next(folder for folder in arguments.video.parents if folder.exists())
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            reason = f"{above} is no folder that can be written to; give another"
            raise OutputError(f"{arguments.video} cannot be written: {reason}.")


def _same(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)


def _check_inputs(paths: Sequence[Path], arguments: argparse.Namespace) -> None:
    """UserError where the files that were found are not what the options need."""
    inputs, out, video = ", ".join(arguments.inputs), arguments.out, arguments.video
    if not paths:
        raise UserError(f"there are no pictures or clips in {inputs}.")
    if not any(map(os.path.lexists, paths)):  # said before a file of scores is replaced by one without rows
        raise UserError(f"there is no file, folder or match of {inputs}.")
    if video and (len(paths) != 1 or not is_clip(paths[0])):
        raise UserError("--video needs one clip as its only input.")
    if video and _same(video, paths[0]):
        raise UserError(f"{video}: this is the clip itself; give --video another name.")
    # A resumed run goes on with a file of scores and with no other; it may well be among what "*" stands for by then.
    if out and not arguments.resume and any(_same(path, out) for path in paths if path.suffix in FORMATS):
        raise UserError(f"{out}: this is one of the inputs; leave it out of them, or give -o another name.")


def main(argv: list[str] | None = None) -> int:
    """Score the faces of pictures, folders and clips. Exit codes: 0 done, 1 a file could not be read, 2 wrong use."""
    arguments = _parser().parse_args(argv)
    try:
        _check(arguments)
        methods = list(dict.fromkeys(arguments.method))
        for name in methods:
            METHODS[name]
        track_named(arguments.track)
        others: Counter[str] = Counter()
        paths = find_inputs(arguments.inputs, others)
        if others:
            print(left_out(others), file=sys.stderr)
        _check_inputs(paths, arguments)
        if arguments.cam:
            check_cam(arguments.cam)
        if not arguments.no_detect:
            detect_faces(Image.new("L", (1, 1)))  # raises where there is no detector
        onnx = arguments.runtime == "onnx"
        if onnx:
            need_onnx()  # said before any weights are read
        device = "cpu" if onnx else str(best_device(arguments.device))
        models = [
            load(name, arguments.track, arguments.recipe, arguments.seed, device, arguments.runs) for name in methods
        ]
        models = [onnx_model(model) for model in models] if onnx else models
        emotions = emotions_of(models)
        run = what_makes_the_rows(models, arguments)
        output = ScoreFile(arguments.out, emotions, methods, arguments.resume, run) if arguments.out else None
        written, problems = score_files(paths, models, output, arguments)
    except OSError as error:  # the output's folder cannot be written to, or the disk is full (OutputError too)
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (UserError, UnknownNameError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = f"; --resume goes on with {arguments.out}" if arguments.out and not arguments.video else ""
        print(f"interrupted{hint}.", file=sys.stderr)
        return 1
    for place in (arguments.out, arguments.video):
        if place and place.is_file():
            print(f"{label(place)}: {written} rows" if place == arguments.out else label(place))
    if problems:
        print(f"{len(problems)} of {len(paths)} files could not be read, or not whole:", file=sys.stderr)
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
