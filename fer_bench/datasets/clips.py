"""What the data sets of clips share: the faces in chosen frames, and chosen frames of a long clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from fer_bench import video
from fer_bench.faces import crop, detect_faces, square
from fer_bench.video import Frame

SIDE = 96
"""Side of the stored faces, pixels."""
TURNS = (None, Image.Transpose.ROTATE_270)
"""Upright, else a quarter turn clockwise: part of MMI was filmed with the camera on its side."""


def clips_in(folder: Path) -> list[Path]:
    """The clips directly in a folder, by name; the `._name` files of other systems are left out."""
    return sorted(file for file in folder.iterdir() if video.is_clip(file) and not file.name.startswith("."))


def largest_face(image: Image.Image, side: int = SIDE) -> Image.Image | None:
    """The square around the largest face, RGB (side, side); None without a face."""
    boxes = [face.box for face in detect_faces(image)]
    if not boxes:
        return None
    box = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return square(crop(image, box), side).convert("RGB")


def faces_in(frames: Sequence[Frame], side: int = SIDE) -> list[tuple[Frame, Image.Image]]:
    """The largest face of each frame as RGB (side, side); frames without a face are left out.

    Where no frame shows one, the frames are tried a quarter turn clockwise.
    """
    for turn in TURNS:
        found = []
        for frame in frames:
            face = largest_face(frame.image if turn is None else frame.image.transpose(turn), side)
            if face is not None:
                found.append((frame, face))
        if found:
            return found
    return []


def frames_at(path: Path, indices: Iterable[int], on_damage: Callable[[str], None]) -> Iterator[Frame]:
    """The frames with these indices (from 0), in order; those that the clip does not have are left out.

    It ends at the first damage: behind lost frames nobody knows a frame's index, and its label would be another's. One
    pass that makes pictures of the wanted frames only, one in memory at a time. Errors and on_damage as for
    `video.frames`.
    """
    wanted = set(indices)
    last = max(wanted, default=-1)
    with video._opened(path) as (container, stream):
        for index, time, frame in video._decoded(container, stream, str(path), on_damage, until_damage=True):
            if index in wanted:
                yield Frame(index, time, video._upright(frame))
            if index >= last:
                return
