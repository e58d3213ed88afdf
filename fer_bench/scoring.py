"""The rows of pictures and clips (`predict` says their columns), and clips with the answers drawn in.

Finding the faces and asking the networks are two steps (`prepare`, `score_prepared`), so that the first can be spread
over threads and the second takes the faces of several pictures at once.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fer_bench.cards import InputSpec
from fer_bench.emotions import in_order
from fer_bench.faces import Box, crop, detect_faces, frame_of, square, stack
from fer_bench.files import label
from fer_bench.infer import Model, logits
from fer_bench.networks import check_scores
from fer_bench.scores import AFTER, Row
from fer_bench.video import Frame, frames, probe, representative, write_clip

FRAMES = 8
"""Frames of a clip that are in memory at once, at most."""
TOGETHER = 64
"""Faces of a clip's frames, at most, that wait for the networks together, where that is more than one frame's."""
HELD = 72_000_000
"""Pixels of them, at most, where that is one frame or more: 8 frames of 4K, 2 of 8K, 216 MB."""
PER_SECOND = 5.0
"""Frames of a clip that are scored per second where nothing else is asked for."""
LONGEST = 1280
"""Longest side of an annotated clip, in pixels; larger ones are scaled down."""
HOLD = 10
"""Seconds that an annotated clip stands still at most, so that broken time stamps cannot make it endless."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture whose faces are found and cut out: small enough to wait for its batch.

    boxes: one per face; (None,) is the largest centred square.
    crops: per model, one square picture of its side per face.
    """

    name: str
    time: float | None
    boxes: tuple[Box | None, ...]
    crops: tuple[tuple[Image.Image, ...], ...]


def emotions_of(models: Sequence[Model]) -> tuple[str, ...]:
    """Every emotion that one of the models knows, in the canonical order."""
    return in_order(chain.from_iterable(model.emotions for model in models))


def prepare(
    image: Image.Image,
    name: str,
    models: Sequence[Model],
    detect: bool = True,
    time: float | None = None,
    most_faces: int | None = None,
) -> Prepared:
    """Find the faces of an upright picture and cut each out as each model wants it. Needs no network.

    most_faces: the largest so many alone, in their order.
    """
    boxes = tuple(face.box for face in detect_faces(image)) if detect else ()
    boxes = boxes if most_faces is None else largest(boxes, most_faces)
    return cut_out(image, name, boxes, [model.input_spec for model in models], time)


def largest(boxes: Sequence[Box], most: int) -> tuple[Box, ...]:
    """The largest so many of them, in their order; of equal ones the first."""
    chosen = sorted(range(len(boxes)), key=lambda at: (boxes[at][0] - boxes[at][2]) * (boxes[at][3] - boxes[at][1]))
    return tuple(boxes[at] for at in sorted(chosen[:most]))


def cut_out(
    image: Image.Image, name: str, boxes: Sequence[Box], specs: Sequence[InputSpec], time: float | None = None
) -> Prepared:
    """These faces of a picture, or without any its largest centred square, as each spec wants them."""
    places = tuple(boxes) or (None,)

    def cut(box: Box | None, spec: InputSpec) -> Image.Image:
        return square(crop(image, box, spec.margin) if box else image, spec.size)

    return Prepared(name, time, places, tuple(tuple(cut(box, spec) for box in places) for spec in specs))


def score_prepared(batch: Sequence[Prepared], models: Sequence[Model]) -> list[list[Row]]:
    """The rows of each picture, face by face and, within a face, in the order of the models."""
    probabilities = []
    for place, model in enumerate(models):
        images = stack([image for prepared in batch for image in prepared.crops[place]], model.input_spec.size)
        answers = logits(model, images)
        check_scores(model.name, answers)
        probabilities.append(torch.from_numpy(answers).softmax(1, dtype=torch.float64).numpy().round(6))
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
    most: int | None = None,
) -> Iterator[Row]:
    """The rows of a clip as they come, frame by frame, in flat memory.

    per_second, limit, on_damage, most: as for `video.frames`. count: that many representative frames instead, for which
    the whole clip is read. progress: is called with the fraction done, 0..1. workers: threads that find faces. Raises
    UnreadableClipError.
    """
    chosen = representative(path, count, on_damage) if count else frames(path, per_second, limit, on_damage, most)
    length = probe(path).duration
    for _, _, rows in _scored_frames(path, chosen, length, models, detect, limit, progress, workers, None):
        yield from rows


def _scored_frames(
    path: str | os.PathLike[str],
    chosen: Iterable[Frame],
    length: float,
    models: Sequence[Model],
    detect: bool,
    limit: int | None,
    progress: Callable[[float], object],
    workers: int,
    most_faces: int | None,
) -> Iterator[tuple[Frame, Prepared, list[Row]]]:
    """Each frame with what was found in it. length: of the clip, in seconds."""
    chosen, done = iter(chosen), 0

    def look(frame: Frame) -> Prepared:
        return prepare(frame.image, label(path), models, detect, frame.time, most_faces)

    with ThreadPoolExecutor(workers) as pool:
        while batch := _held(chosen):
            prepared = list(pool.map(look, batch))
            while prepared:
                count = 1
                while count < len(prepared) and sum(len(one.boxes) for one in prepared[: count + 1]) <= TOGETHER:
                    count += 1
                some, prepared = prepared[:count], prepared[count:]
                at = len(batch) - len(prepared)
                yield from zip(batch[at - count : at], some, score_prepared(some, models), strict=True)
            done += len(batch)
            by_time, by_count = batch[-1].time / length if length else 0.0, done / limit if limit else 0.0
            progress(min(1.0, max(by_time, by_count)))
    progress(1.0)


def _held(chosen: Iterator[Frame]) -> list[Frame]:
    """The next frames, FRAMES at most, until they have HELD pixels: their sizes may differ."""
    batch: list[Frame] = []
    pixels = 0
    while len(batch) < FRAMES and pixels < HELD and (frame := next(chosen, None)) is not None:
        batch.append(frame)
        pixels += math.prod(frame.image.size)
    return batch


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
    most: int | None = None,
    most_faces: int | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Path:
    """Write a clip as an mp4 with each face's box, likeliest emotion and its probability, and return its path.

    per_second: frames scored, and shown, per second; None is every frame. cam: a name of `cams.CAMS`, laid over each
    face. on_rows: receives each frame's rows, those of `others` too, so that a clip is read once for both. go_on: as
    for `video.frames`. The rest as for `score_clip`. A pause in the clip's time stamps holds the picture, HOLD seconds
    at most. The sound is not kept.
    Raises UserError for an output that is not .mp4 and an unknown CAM, UnreadableClipError.
    """
    clip = probe(path, go_on)
    fps = min(per_second or clip.fps or 25.0, 60.0)
    longest = max(clip.size)
    size = tuple(max(2, round(side * min(1.0, LONGEST / longest))) for side in clip.size)

    def pictures() -> Iterator[np.ndarray]:
        due, shown = 0, None  # the output's next frame, and the picture to hold until then
        chosen, models = frames(path, per_second, limit, on_damage, most, go_on), (model, *others)
        for frame, prepared, rows in _scored_frames(
            path, chosen, clip.duration, models, detect, limit, progress, workers, most_faces
        ):
            on_rows(rows)
            slot = math.floor(frame.time * fps + (1e-6 if per_second else 0.5))
            if slot < due:
                continue  # a burst of frames within one of the output's
            if shown is not None:
                yield from [shown] * min(slot - due, round(HOLD * fps))
            image = annotated(frame.image, prepared, rows[:: len(models)], model, cam)
            shown = np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR))
            yield shown
            due = slot + 1

    return write_clip(out, pictures(), fps)


def annotated(image: Image.Image, prepared: Prepared, rows: list[Row], model: Model, cam: str | None) -> Image.Image:
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
