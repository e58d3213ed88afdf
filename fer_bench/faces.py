"""Pictures in any usual form -> upright uint8 arrays, and square crops of them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_bench.errors import UserError

Picture: TypeAlias = "Image.Image | np.ndarray | str | os.PathLike[str] | bytes"


class UnreadablePictureError(UserError):
    """A file that is no picture, or a broken one; the text names it."""


def open_picture(picture: Picture, name: str = "") -> Image.Image:
    """Any picture as an upright 8-bit PIL image, mode "L" (it was grey) or "RGB".

    picture: PIL image, path, encoded bytes, or array: uint8 or float in [0, 1], (H, W), (H, W, 1), (H, W, 3) or
    (H, W, 4). EXIF rotation is applied, alpha is laid on mid grey, 16-bit is scaled to 8, an animation gives its
    first frame. Raises UnreadablePictureError, naming the file (or `name`), for anything else.
    """
    label = name or _label(picture)
    try:
        if isinstance(picture, np.ndarray):
            return _to_8bit(_from_array(picture))
        if isinstance(picture, Image.Image):
            return _to_8bit(picture)
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture)) as opened:
            return _to_8bit(opened)
    except FileNotFoundError:
        raise UnreadablePictureError(f"{label}: there is no such file.") from None
    except Exception as error:  # a broken file makes each decoder raise a kind of its own
        raise UnreadablePictureError(f"{label}: this is not a readable picture ({_brief(error)}).") from None


def _label(picture: object) -> str:
    if isinstance(picture, str | os.PathLike):
        return str(picture)
    if isinstance(picture, np.ndarray):
        return "the array"
    return getattr(picture, "filename", "") or "the picture"


def _brief(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is unknown"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    return str(error).splitlines()[0].rstrip(".")[:120] if str(error) else type(error).__name__


def _from_array(array: np.ndarray) -> Image.Image:
    """uint8 or float in [0, 1] -> 8-bit image. Raises ValueError, saying what is wrong, for anything else."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise ValueError(f"its shape must be (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"its pixels must be uint8 in 0..255 or floats in 0..1, not {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError("it has pixels that are not finite")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"its floats must lie in 0..1, not {array.min():g}..{array.max():g}")
    return Image.fromarray((array * 255).round().astype(np.uint8))


def _to_8bit(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep(image)
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, (128, 128, 128, 255))
        image = Image.alpha_composite(backdrop, image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float pixels -> 8-bit. The last two do not say their range: the least usual one that fits."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are not finite")
    usual = (65535.0,) if image.mode.startswith("I;16") else (255.0, 65535.0) if image.mode == "I" else (1.0, 255.0)
    top = next((top for top in usual if values.max() <= top), usual[-1])
    return Image.fromarray((values * (255.0 / top)).clip(0, 255).round().astype(np.uint8))


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
