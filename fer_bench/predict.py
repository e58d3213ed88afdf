"""python -m fer_bench.predict: scores for pictures, folders and clips of one's own.

One row per face and method: filepath, face (from 1; 0 where none was found and the whole picture was used), time
(seconds from the clip's start; empty for pictures), method, emotion (the likeliest), then one column per emotion with
its probability, then left, top, right, bottom of the face in pixels (empty for the whole picture). The emotions are all
that the methods of a run know; where a method does not know one, its cell is empty. Probabilities of a row sum to 1, up
to their rounding to six digits.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from fer_bench.emotions import in_order
from fer_bench.errors import UserError
from fer_bench.faces import (
    PICTURE_SUFFIXES,
    Box,
    UnreadablePictureError,
    crop,
    detect_faces,
    frame_of,
    open_picture,
    square,
    stack,
)
from fer_bench.infer import Model, best_device, load, logits
from fer_bench.methods import METHODS
from fer_bench.protocols import track_named
from fer_bench.registry import UnknownNameError
from fer_bench.scores import AFTER, FORMATS, Row, ScoreFile, columns
from fer_bench.video import Frame, UnreadableClipError, frames, is_clip, probe, representative, write_clip

__all__ = ["annotate_clip", "columns", "emotions_of", "score_clip", "score_picture"]

GROUP = 32
"""Pictures that are scored, and written, together."""
FRAMES = 8
"""Frames of a clip that are in memory at once."""
PER_SECOND = 5.0
"""Frames of a clip that are scored per second where nothing else is asked for."""
LONGEST = 1280
"""Longest side of an annotated clip, in pixels; larger ones are scaled down."""
HOLD = 10
"""Seconds that an annotated clip stands still at most, so that broken time stamps cannot make it endless."""
_log = logging.getLogger(__name__)


# Scoring, without files of our own ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture whose faces are found and cut out: small enough to wait for its batch.

    boxes: one per face; (None,) is the whole picture.   crops: per model, one square picture of its side per face.
    """

    name: str
    time: float | None
    boxes: tuple[Box | None, ...]
    crops: tuple[tuple[Image.Image, ...], ...]


def emotions_of(models: Sequence[Model]) -> tuple[str, ...]:
    """Every emotion that one of the models knows, in the canonical order."""
    return in_order(chain.from_iterable(model.emotions for model in models))


def prepare(
    image: Image.Image, name: str, models: Sequence[Model], detect: bool = True, time: float | None = None
) -> Prepared:
    """Find the faces of an upright picture and cut each out as each model wants it. Needs no network."""
    boxes = tuple(face.box for face in detect_faces(image)) if detect else ()
    boxes = boxes or (None,)

    def cut(box: Box | None, model: Model) -> Image.Image:
        return square(crop(image, box, model.input_spec.margin) if box else image, model.input_spec.size)

    return Prepared(name, time, boxes, tuple(tuple(cut(box, model) for box in boxes) for model in models))


def score_prepared(batch: Sequence[Prepared], models: Sequence[Model]) -> list[list[Row]]:
    """The rows of each picture, face by face and, within a face, in the order of the models."""
    probabilities = []
    for place, model in enumerate(models):
        images = stack([image for prepared in batch for image in prepared.crops[place]], model.input_spec.size)
        answers = torch.from_numpy(logits(model, images, 64))
        probabilities.append(answers.softmax(1, dtype=torch.float64).numpy().round(6))
    emotions, at, rows = emotions_of(models), 0, []
    for prepared in batch:
        rows.append([])
        for number, box in enumerate(prepared.boxes, 1):
            for model, table in zip(models, probabilities, strict=True):
                scores = dict(zip(model.emotions, table[at].tolist(), strict=True))
                rows[-1].append(
                    {
                        "filepath": prepared.name,
                        "face": number if box else 0,
                        "time": None if prepared.time is None else round(prepared.time, 3),
                        "method": model.name,
                        "emotion": max(scores, key=scores.__getitem__),
                        **{emotion: scores.get(emotion) for emotion in emotions},
                        **dict(zip(AFTER, box or (None,) * 4, strict=True)),
                    }
                )
            at += 1
    return rows


def score_picture(image: Image.Image, name: str, models: Sequence[Model], detect: bool = True) -> list[Row]:
    """The rows of one picture (see the module's docstring). image: upright, as `faces.open_picture` gives it."""
    return score_prepared([prepare(image, name, models, detect)], models)[0]


def score_clip(
    path: str | os.PathLike[str],
    models: Sequence[Model],
    per_second: float | None = PER_SECOND,
    limit: int | None = None,
    progress: Callable[[float], object] = lambda fraction: None,
    detect: bool = True,
    count: int | None = None,
    workers: int = 1,
    on_damage: Callable[[str], object] = _log.warning,
) -> Iterator[Row]:
    """The rows of a clip as they come, frame by frame, in flat memory.

    per_second, limit, on_damage: as for `video.frames`. count: that many representative frames instead. progress: is
    called with the fraction done, 0..1. workers: threads that find faces. Raises UnreadableClipError.
    """
    chosen = representative(path, count, on_damage) if count else frames(path, per_second, limit, on_damage)
    for _, _, rows in _scored_frames(path, chosen, models, detect, limit, progress, workers):
        yield from rows


def _scored_frames(
    path: str | os.PathLike[str],
    chosen: Iterable[Frame],
    models: Sequence[Model],
    detect: bool,
    limit: int | None,
    progress: Callable[[float], object],
    workers: int,
) -> Iterator[tuple[Frame, Prepared, list[Row]]]:
    """Each frame with what was found in it."""
    chosen, length, done = iter(chosen), probe(path).duration, 0
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(chosen, FRAMES)):
            prepared = list(pool.map(lambda one: prepare(one.image, _label(path), models, detect, one.time), batch))
            yield from zip(batch, prepared, score_prepared(prepared, models), strict=True)
            done += len(batch)
            by_time, by_count = batch[-1].time / length if length else 0.0, done / limit if limit else 0.0
            progress(min(1.0, max(by_time, by_count)))
    progress(1.0)


def annotate_clip(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: Model,
    per_second: float | None = None,
    limit: int | None = None,
    cam: str | None = None,
    progress: Callable[[float], object] = lambda fraction: None,
    detect: bool = True,
    others: Sequence[Model] = (),
    on_rows: Callable[[list[Row]], object] = lambda rows: None,
    workers: int = 1,
    on_damage: Callable[[str], object] = _log.warning,
) -> Path:
    """Write a clip as an mp4 with each face's box, likeliest emotion and its probability, and return its path.

    per_second: frames scored, and shown, per second; None is every frame. cam: a name of `explain.CAMS`, laid over each
    face. on_rows: receives each frame's rows, those of `others` too, so that a clip is read once for both. The rest as
    for `score_clip`. A pause in the clip's time stamps holds the picture, HOLD seconds at most. The sound is not kept.
    Raises UserError for an output that is not .mp4 and an unknown CAM, UnreadableClipError.
    """
    clip = probe(path)
    fps = min(per_second or clip.fps or 25.0, 60.0)
    longest = max(clip.size)
    size = tuple(max(2, round(side * min(1.0, LONGEST / longest))) for side in clip.size)

    def pictures() -> Iterator[np.ndarray]:
        due, shown = 0, None  # the output's next frame, and the picture to hold until then
        chosen, models = frames(path, per_second, limit, on_damage), (model, *others)
        for frame, prepared, rows in _scored_frames(path, chosen, models, detect, limit, progress, workers):
            on_rows(rows)
            slot = math.floor(frame.time * fps + (1e-6 if per_second else 0.5))
            if slot < due:
                continue  # a burst of frames within one of the output's
            if shown is not None:
                yield from [shown] * min(slot - due, round(HOLD * fps))
            image = _annotated(frame.image, prepared, rows[:: len(models)], model, cam)
            shown = np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR))
            yield shown
            due = slot + 1

    return write_clip(out, pictures(), fps)


def _annotated(image: Image.Image, prepared: Prepared, rows: list[Row], model: Model, cam: str | None) -> Image.Image:
    """A copy with boxes, labels and CAMs. rows: one per face, of `model`, whose crops are the first."""
    image = image.copy()
    squares = [frame_of(box, model.input_spec.margin) if box else _middle(image) for box in prepared.boxes]
    if cam:
        from fer_bench.explain import explain, overlay  # here, since it takes seconds

        maps = explain(model, stack(list(prepared.crops[0]), model.input_spec.size), method=cam).maps
        for (left, top, right, bottom), values in zip(squares, maps, strict=True):
            face = overlay(image.crop((left, top, right, bottom)), values)
            image.paste(face, (left, top))
    draw = ImageDraw.Draw(image)
    line = max(2, max(image.size) // 300)
    font = ImageFont.load_default(max(12, max(image.size) // 36))
    for box, row in zip(prepared.boxes, rows, strict=True):
        if box:
            draw.rectangle(box, outline=(255, 220, 0), width=line)
        text = f"{row['emotion']} {row[row['emotion']]:.0%}"
        width, height = draw.textbbox((0, 0), text, font=font)[2:]
        x = min(max(0, box[0] if box else 0), max(0, image.width - width - 2 * line))
        y = box[1] - height - 2 * line if box else 0
        y = y if y >= 0 else min(box[3] if box else 0, image.height - height - 2 * line)
        draw.rectangle((x, y, x + width + 2 * line, y + height + 2 * line), fill=(0, 0, 0))
        draw.text((x + line, y + line), text, fill=(255, 255, 255), font=font)
    return image


def _middle(image: Image.Image) -> Box:
    """What `faces.square` keeps of a picture."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return (left, top, left + side, top + side)


def _label(path: str | os.PathLike[str]) -> str:
    """The text of a path in the output; a name that is no valid UTF-8 is written with escapes."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")


# Inputs -------------------------------------------------------------------------------------------------------------


def find_inputs(given: Iterable[str]) -> list[Path]:
    """The files that the inputs stand for, each once: a file is itself, a folder all pictures and clips below it (by
    their names' endings, in order, hidden ones left out), and what is neither is taken as a glob ("**" reaches into
    folders). An input that matches nothing stays in the list, to be reported as a file that is not there.
    """
    found: dict[Path, None] = {}
    for text in given:
        matches = [Path(text)] if os.path.lexists(text) else [Path(m) for m in sorted(glob.glob(text, recursive=True))]
        for path in matches or [Path(text)]:
            found.update(dict.fromkeys(_below(path) if path.is_dir() else [path]))
    return list(found)


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and (Path(name).suffix.lower() in PICTURE_SUFFIXES or is_clip(name)):
                yield Path(here) / name


def in_groups(paths: Sequence[Path]) -> list[list[Path]]:
    """What is scored and written together, in order: up to GROUP pictures, or one clip."""
    groups: list[list[Path]] = []
    for clip, run in groupby(paths, is_clip):
        members = list(run)
        step = 1 if clip else GROUP
        groups += [members[start : start + step] for start in range(0, len(members), step)]
    return groups


# The command --------------------------------------------------------------------------------------------------------


def score_files(
    paths: Sequence[Path], models: Sequence[Model], output: ScoreFile | None, arguments: argparse.Namespace
) -> tuple[int, list[str]]:
    """Score every file. Returns the number of rows written, and one sentence per file that was not read whole."""
    written, problems, groups = 0, [], in_groups(paths)
    done = output.start([[_label(path) for path in group] for group in groups]).done if output else set()

    def read(path: Path) -> Prepared | str:
        try:
            return prepare(open_picture(path), _label(path), models, not arguments.no_detect)
        except UnreadablePictureError as error:
            return str(error)

    def take(rows: list[Row]) -> None:
        nonlocal written
        written += len(rows)
        if output:
            output.add(rows)

    with (
        output or contextlib.nullcontext(),
        ThreadPoolExecutor(arguments.workers) as pool,
        tqdm(total=len(paths), unit="file", disable=None, smoothing=0.05) as bar,
    ):
        for group in groups:
            left = [path for path in group if _label(path) not in done]
            if left and is_clip(left[0]):
                _score_clip_file(left[0], models, take, arguments, problems.append, bar)
            elif left:
                prepared = list(pool.map(read, left))
                problems += [one for one in prepared if isinstance(one, str)]
                rows = score_prepared([one for one in prepared if isinstance(one, Prepared)], models)
                take(list(chain.from_iterable(rows)))
            bar.update(len(group))
    return written, problems


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
    parser = argparse.ArgumentParser(prog="fer_bench.predict", description=main.__doc__)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="picture, clip, folder (with all below it) or glob")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=".csv, .jsonl or .parquet")
    parser.add_argument("--method", nargs="+", default=["small_cnn"], metavar="NAME", help="default: small_cnn")
    parser.add_argument("--no-detect", action="store_true", help="the pictures are faces already: use each whole")
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
    weights = parser.add_argument_group("weights")
    weights.add_argument("--track", default="fer2013", help="whose weights; default: fer2013")
    weights.add_argument("--recipe", default="common-v1")
    weights.add_argument("--seed", type=int, default=0)
    weights.add_argument("--runs", type=Path, metavar="DIR", help="a training output folder to take weights from first")
    weights.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument(
        "--workers", type=_count, default=min(4, cores), metavar="N", help="threads that open pictures and find faces"
    )
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """UserError for options that contradict each other."""
    if not arguments.out and not arguments.video:
        raise UserError("give -o FILE for the scores, --video FILE.mp4 for an annotated clip, or both.")
    if arguments.out and arguments.out.suffix not in FORMATS:
        raise UserError(f"{arguments.out}: scores are written as {', '.join(FORMATS)}; give a name that ends so.")
    if arguments.out and arguments.out.is_dir():
        raise UserError(f"{arguments.out}: this is a folder; give a file to -o.")
    if arguments.representative and (arguments.per_second or arguments.limit or arguments.video):
        raise UserError("--representative chooses the frames itself: leave out --per-second, --limit and --video.")
    if arguments.cam and not arguments.video:
        raise UserError("--cam is drawn into a clip: give --video FILE.mp4 too.")
    if arguments.video and arguments.resume:
        raise UserError("--video is written in one go: leave out --resume.")
    if arguments.resume and not arguments.out:
        raise UserError("--resume goes on with a file of scores: give -o FILE.")


def main(argv: list[str] | None = None) -> int:
    """Score the faces of pictures, folders and clips. Exit codes: 0 done, 1 a file could not be read, 2 wrong use."""
    arguments = _parser().parse_args(argv)
    try:
        _check(arguments)
        methods = list(dict.fromkeys(arguments.method))
        for name in methods:
            METHODS[name]
        track_named(arguments.track)
        paths = find_inputs(arguments.inputs)
        if not paths:
            raise UserError(f"there are no pictures or clips in {', '.join(arguments.inputs)}.")
        if arguments.video and (len(paths) != 1 or not is_clip(paths[0])):
            raise UserError("--video needs one clip as its only input.")
        if arguments.cam:
            from fer_bench.explain import check_cam

            check_cam(arguments.cam)
        device = str(best_device(arguments.device))
        models = [
            load(name, arguments.track, arguments.recipe, arguments.seed, device, arguments.runs) for name in methods
        ]
        emotions = emotions_of(models)
        output = ScoreFile(arguments.out, emotions, methods, arguments.resume) if arguments.out else None
        written, problems = score_files(paths, models, output, arguments)
    except (UserError, UnknownNameError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # the output's folder cannot be written to, or the disk is full
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        hint = f"; --resume goes on with {arguments.out}" if arguments.out and not arguments.video else ""
        print(f"interrupted{hint}.", file=sys.stderr)
        return 1
    for place in (arguments.out, arguments.video):
        if place and place.is_file():
            print(f"{place}: {written} rows" if place == arguments.out else place)
    if problems:
        print(f"{len(problems)} of {len(paths)} files could not be read, or not whole:", file=sys.stderr)
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
