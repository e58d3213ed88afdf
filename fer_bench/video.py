"""Clips through PyAV: frames by time, the most representative frames, and clips to show. Memory is flat throughout."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fer_bench.clip_length import duration
from fer_bench.errors import UserError
from fer_bench.files import written_whole

if TYPE_CHECKING:
    import av

CLIP_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".m2ts")
)
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,h264,hevc,ivf"
"""What is read. Playlists are not among it: in a file called clip.mp4, one could make FFmpeg open other files."""
MOST_PIXELS = 36_000_000
"""Clips with larger frames are refused. 8K has 35 million; at 1.5 bytes each, a decoder may hold 17 frames at once."""
MOST_DECODED = 20_000
"""A bound on decoded frames, to be given as `most` where a stranger's clip must not hold others up: 5 minutes of 60 a
second. Of a clip whose time stamps all agree, `per_second` and `limit` alone would decode every frame to find one."""
HELD_BACK = 64
"""Frames that a decoder may hold back, more than any does, before it shows the first."""
WIDEST = 4
"""Pixels at most so many times as wide as high, or as high as wide, are believed; 2.9 is the most that H.264 names."""
_log = logging.getLogger(__name__)


class UnreadableClipError(UserError):
    """A file that is no clip, has no pictures in it or cannot be decoded at all; the text names it."""


@dataclass(frozen=True)
class Frame:
    """One decoded frame. index: from 0, among the frames that decode whole.   time: seconds from the clip's first one.

    Up to the first damage the index is the frame's place in the clip as stored; after it, what was lost is not counted.
    image: PIL RGB, upright and with square pixels, as the clip is meant to be shown.
    """

    index: int
    time: float
    image: Image.Image


@dataclass(frozen=True)
class Clip:
    """What a clip's header says; none of it is certain. duration: seconds.   fps: frames per second, on average.

    frames: about how many.   size: width and height of `Frame.image`.   rotation: degrees counter-clockwise that the
    stored frames are turned by to be shown.   Unknown duration and fps are 0.
    """

    duration: float
    fps: float
    frames: int
    size: tuple[int, int]
    rotation: int


def is_clip(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name ends as those of clips do. (.gif does not: `open_picture` takes its first frame.)"""
    return Path(path).suffix.lower() in CLIP_SUFFIXES


def probe(path: str | os.PathLike[str], go_on: Callable[[], bool] = lambda: True) -> Clip:
    """Read a clip's header and first frame. go_on: as for `frames`. Raises UnreadableClipError as `frames` does."""
    with _opened(path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        length = duration(container, stream)
        first = next(_decoded(container, stream, str(path), lambda note: None, go_on=go_on))[2]
        size = (first.height, first.width) if first.rotation % 180 else (first.width, first.height)
        return Clip(length, rate, stream.frames or round(length * rate), size, first.rotation)


def frames(
    path: str | os.PathLike[str],
    per_second: float | None = None,
    limit: int | None = None,
    on_damage: Callable[[str], None] = _log.warning,
    most: int | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Iterator[Frame]:
    """The frames of a clip in order, as many per second as asked for, by their time stamps and not by counting.

    per_second: the first frame in each 1/per_second of a second; where a clip has a slower or varying rate, an interval
    without a frame gives none. None gives every frame. limit: at most so many frames. on_damage: is called with one
    sentence if part of the clip cannot be decoded (cut off, broken in the middle); the frames that decode are given.
    most: decode at most so many, given or not, of the first one's size (a larger one counts for as many as its pixels
    are); on_damage is called with one sentence where the clip has more of them. go_on: is asked before each packet is
    decoded, since a clip may hold any number that show nothing; where it says no, reading ends without a word.
    Raises UnreadableClipError for what is missing, empty, no clip, without pictures (sound only), wholly broken or of
    more than MOST_PIXELS pixels a frame, and where go_on says no before the first; ValueError where per_second, limit
    or most is not positive.
    """
    if (per_second is not None and not per_second > 0) or (limit is not None and limit < 1):
        raise ValueError(f"per_second and limit must be positive, not {per_second} and {limit}")
    if most is not None and most < 1:
        raise ValueError(f"most must be positive, not {most}")
    return _frames(path, per_second, limit, on_damage, most, go_on)


def _frames(
    path: str | os.PathLike[str],
    per_second: float | None,
    limit: int | None,
    on_damage: Callable[[str], None],
    most: int | None,
    go_on: Callable[[], bool],
) -> Iterator[Frame]:
    given, due = 0, -math.inf
    with _opened(path) as (container, stream):
        for index, time, frame in _decoded(container, stream, str(path), on_damage, most=most, go_on=go_on):
            if time < due - 1e-6:
                continue
            if per_second is not None:
                due = (math.floor(time * per_second + 1e-6) + 1) / per_second
            yield Frame(index, time, _upright(frame))
            given += 1
            if given == limit:
                return


# Choosing frames ----------------------------------------------------------------------------------------------------

THUMBNAIL = 32
"""Side of the grey thumbnails that frames are compared by, in pixels: 4 KB each as they are kept."""
CANDIDATES = 1024
"""At most so many thumbnails are kept; a longer clip keeps every 2nd, 4th, 8th ... frame, evenly spread."""
ALIKE = 0.75
"""Frames nearer than this are near-duplicates: root mean square difference of the thumbnails, in grey levels of 255.

In clips of MMI's size (720 x 576, a drawn face of half its height in 13 stages of an expression) 6 to 12 stages are
told apart (3 to 5 at 1.5), and grain with a standard deviation of 4 levels is no difference.
"""


def representative(
    path: str | os.PathLike[str], count: int = 20, on_damage: Callable[[str], None] = _log.warning
) -> list[Frame]:
    """The most representative frames of a clip, at most `count`, in order of time.

    P0 (METHODS.md) states that 20 "most representative" frames of each clip are used, and not how they are found. Ours:
    frames are compared as 32 x 32 grey thumbnails, each less its mean, so that a change of light is no change of face.
    1. The apex - the frame most different from the first one, which in MMI and CK+ is neutral - is always chosen.
    2. The first frame is chosen next, then again and again the frame most different from its nearest chosen one.
    3. It stops at `count`, or earlier where every other frame is a near-duplicate (`ALIKE`) of a chosen one: a clip
       that stands still gives one frame.
    One pass over the clip keeps thumbnails only (4 MB at most, however long it is), a second decodes the chosen frames.
    Errors and on_damage as for `frames`; ValueError where count is not positive.
    """
    if count < 1:
        raise ValueError(f"count must be positive, not {count}")
    wanted = set(_chosen(path, count, on_damage))
    found: list[Frame] = []
    with _opened(path) as (container, stream):
        for index, time, frame in _decoded(container, stream, str(path), lambda note: None):
            if index in wanted:
                found.append(Frame(index, time, _upright(frame)))
            if index >= max(wanted):
                break
    return found


def _chosen(path: str | os.PathLike[str], count: int, on_damage: Callable[[str], None]) -> list[int]:
    """Indices of the representative frames, in the order in which they are chosen."""
    indices: list[int] = []
    kept: list[np.ndarray] = []
    step, apex, furthest = 1, (0, np.zeros(0, np.float32)), -1.0
    with _opened(path) as (container, stream):
        for index, _, frame in _decoded(container, stream, str(path), on_damage):
            if index % step == 0:
                kept.append(_thumbnail(frame))
                indices.append(index)
                newest = kept[-1]
            else:
                newest = _thumbnail(frame)
            distance = _distance(newest, kept[0])
            if distance > furthest:
                apex, furthest = (index, newest), distance
            if len(kept) == CANDIDATES:
                kept, indices, step = kept[::2], indices[::2], step * 2
    thumbnails, indices = np.stack([apex[1], *kept]), [apex[0], *indices]
    chosen = [0]
    nearest = _distance(thumbnails, thumbnails[0])
    while len(chosen) < count and nearest.max() > ALIKE:
        # thumbnails[1] is the clip's first frame
        newest = 1 if len(chosen) == 1 and nearest[1] > ALIKE else int(nearest.argmax())
        chosen.append(newest)
        nearest = np.minimum(nearest, _distance(thumbnails, thumbnails[newest]))
    return [indices[place] for place in chosen]


def _thumbnail(frame: av.VideoFrame) -> np.ndarray:
    """float32 (THUMBNAIL * THUMBNAIL,), mean 0."""
    small = frame.reformat(width=THUMBNAIL, height=THUMBNAIL, format="gray", interpolation="AREA").to_ndarray()
    values = small.astype(np.float32).ravel()
    return values - values.mean()


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(first - second).mean(-1))


# Decoding -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its first stream of pictures; UnreadableClipError where there is none."""
    import av

    path = Path(path)
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "there is no such file"
        raise UnreadableClipError(f"{path}: {what}.")
    if not path.stat().st_size:
        raise UnreadableClipError(f"{path}: this file is empty.")
    try:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
        bound = {"max_pixels": str(MOST_PIXELS * 5 // 4)}  # some decoders count what they lay around a frame
        container = av.open(f"file:{path.absolute()}", options=bound, container_options=options)
    except (av.FFmpegError, OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UnreadableClipError(f"{path}: this is not a readable clip, or one cut off ({reason}).") from None
    with container:
        covers = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            raise UnreadableClipError(f"{path}: there are no moving pictures in it: only sound, or it is cut off.")
        try:
            streams[0].thread_type = "AUTO"
            streams[0].codec_context.thread_count = 2
            streams[0].codec_context.options = bound  # those of `av.open` hold while it looks for the header only
        except (av.FFmpegError, AttributeError, RuntimeError):
            raise UnreadableClipError(f"{path}: its kind of video cannot be decoded here.") from None
        _bounded(streams[0].codec_context.width, streams[0].codec_context.height, str(path))
        yield container, streams[0]


def _bounded(width: float, height: float, label: str) -> None:
    """UnreadableClipError where a frame is too large."""
    if width * height > MOST_PIXELS:
        raise UnreadableClipError(
            f"{label}: its frames have more than {MOST_PIXELS // 10**6} megapixels; make the clip smaller first."
        )


def _decoded(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    label: str,
    on_damage: Callable[[str], None],
    until_damage: bool = False,
    most: int | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[int, float, av.VideoFrame]]:
    """(index, seconds from the first frame, frame) of every frame that decodes whole, in order of time.

    until_damage: end at the first damage, since nobody knows how many frames are lost there. go_on, most: as for
    `frames`, and each packet counts as a frame of the decoder's size at least: a clip of one picture may have any
    number of frames that are decoded and never shown.
    """
    import av

    index, start, time, shown, broken, seen, read, first, tried, sent = -1, None, 0.0, 0.0, 0, 0, 0, 0, 0, 0
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    packets, ended = container.demux(stream), None
    while not (until_damage and broken):
        if not go_on():
            if index < 0:
                raise UnreadableClipError(f"{label}: the time was up before it showed a frame; cut it into parts.")
            return
        try:
            decoded, coded = next(packets).decode(), stream.codec_context.width * stream.codec_context.height
        except (StopIteration, av.error.EOFError):
            break
        except (av.FFmpegError, OSError) as error:
            if error.errno == errno.EINVAL and not stream.codec_context.width:
                _bounded(math.inf, 1, label)  # FFmpeg forgets a size that is over max_pixels
            broken += 1
            ended = getattr(error, "strerror", None) or type(error).__name__
            if broken > 1000 or not isinstance(error, av.error.InvalidDataError):
                break
            continue
        weight = max(1, coded // first) if first else 1
        tried, sent = tried + weight, sent + 1
        for frame in decoded if most is None or tried <= most + HELD_BACK * weight else [None]:
            if frame is None or (most is not None and seen >= most):
                if index < 0:
                    raise UnreadableClipError(f"{label}: no frame is shown in its first {sent:,} packets.")
                on_damage(f"{label}: only the first {read:,} frames, up to {time:.1f} s, were read; cut it into parts.")
                return
            pixels = frame.width * frame.height
            first = first or max(1, pixels)
            seen, read = seen + max(1, pixels // first), read + 1
            if frame.is_corrupt:  # what a decoder guesses after data is lost
                broken += 1
                if until_damage:
                    break
                continue
            index += 1
            stamp = frame.time if frame.time is not None else (start or 0.0) + index / rate
            start = stamp if start is None else start
            time = max(time, stamp - start)
            shown = time + float((frame.duration or 0) * (frame.time_base or 0))  # the last one may stand long
            yield index, time, _square(frame, stream.sample_aspect_ratio, label)
    if index < 0:
        raise UnreadableClipError(f"{label}: no frame in it can be decoded{f' ({ended})' if ended else ''}.")
    length = duration(container, stream)
    if broken or max(shown, time + max(1.0, 2 / rate)) < length * 0.98:
        whole = f" of {length:.1f}" if length else ""
        on_damage(f"{label}: part of this clip is broken or cut off; its frames up to {time:.1f}{whole} s were read.")


def _square(frame: av.VideoFrame, aspect: Fraction | None, label: str) -> av.VideoFrame:
    """A stored frame with square pixels: where they are `aspect` times as wide as high, it is stretched, never shrunk.

    So HDV's 1440 x 1080 become 1920 x 1080. Rounding to whole sides makes aspects of nearly 1, which are taken for it.
    """
    aspect = aspect if aspect and 1 / WIDEST <= aspect <= WIDEST and abs(aspect - 1) > 0.01 else 1
    width, height = round(frame.width * max(1, aspect)), round(frame.height / min(1, aspect))
    _bounded(width, height, label)
    return frame if aspect == 1 else frame.reformat(width=width, height=height)


def _upright(frame: av.VideoFrame) -> Image.Image:
    image = frame.to_image()
    turn = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    quarter = round(frame.rotation / 90) * 90 % 360
    return image.transpose(turn[quarter]) if quarter else image


# Writing ------------------------------------------------------------------------------------------------------------

FASTEST = 1000
"""Frames per second that are written at most; at a million, an mp4 cannot be decoded again."""


def check_clip_name(path: Path) -> Path:
    """The path, if a clip can be written under this name; UserError otherwise."""
    if path.suffix.lower() != ".mp4":
        raise UserError(f"{path}: clips are written as .mp4; give a name that ends so.")
    return path


def write_clip(path: str | os.PathLike[str], pictures: Iterable[np.ndarray], fps: float) -> Path:
    """Write an mp4 that browsers play, whole or not at all: H.264 (MPEG-4 where that encoder is missing), yuv420p.

    pictures: uint8 (H, W, 3) RGB, all of one size; an odd side is made even by repeating its last row or column.
    fps: frames per second. Raises UserError where there are no pictures or the path does not end in .mp4, ValueError
    where a picture or the rate is not as stated, OutputError where the file cannot be written.
    """
    import av

    path = check_clip_name(Path(path))
    if not 0 < fps <= FASTEST:
        raise ValueError(f"fps must be positive and at most {FASTEST}, not {fps}")
    pictures = iter(pictures)
    first = next(pictures, None)
    if first is None:
        raise UserError(f"{path}: there are no frames to write.")
    options = {"movflags": "+faststart"}  # the index in front, so that a browser can begin to play
    with (
        written_whole(path) as temporary,
        av.open(f"file:{temporary.absolute()}", "w", format="mp4", options=options) as container,
    ):
        rate = max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))
        try:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        except (av.FFmpegError, ValueError):
            stream = container.add_stream("mpeg4", rate=rate, options={"qscale": "3"})
        stream.width, stream.height = (side + side % 2 for side in (first.shape[1], first.shape[0]))
        stream.pix_fmt = "yuv420p"
        for picture in chain([first], pictures):
            if picture.shape != first.shape or picture.ndim != 3 or picture.dtype != np.uint8:
                raise ValueError(f"pictures must be uint8 {first.shape}, not {picture.dtype} {picture.shape}")
            even = np.pad(picture, [(0, side % 2) for side in picture.shape[:2]] + [(0, 0)], mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode(None))
    return path
