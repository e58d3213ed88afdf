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
    first frame. Raises UnreadablePictureError, naming the file, for anything else.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture, name or "the array")
    if isinstance(picture, Image.Image):
        return _to_8bit(picture)
    label = name or (str(picture) if not isinstance(picture, bytes) else "the picture")
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture)) as opened:
            opened.load()
            return _to_8bit(opened)
    except FileNotFoundError:
        raise UnreadablePictureError(f"{label}: there is no such file.") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadablePictureError(f"{label}: this is not a readable picture ({_brief(error)}).") from None


def _brief(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is unknown"
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def _from_array(array: np.ndarray, label: str) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise UnreadablePictureError(f"{label}: a picture is (H, W), (H, W, 3) or (H, W, 4), not {array.shape}.")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all() or not 0 <= array.min() <= array.max() <= 1:
            raise UnreadablePictureError(f"{label}: pixels are uint8 in 0..255 or floats in 0..1, not {array.dtype}.")
        array = (array * 255).round().astype(np.uint8)
    return _to_8bit(Image.fromarray(array))


def _to_8bit(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if image.mode.startswith("I") and values.max(initial=0) > 255 else 255.0
        return Image.fromarray((values * (255.0 / top)).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("1", "L"):
        return image.convert("L")
    if "A" in image.mode or "transparency" in image.info:
        backdrop = Image.new("RGBA", image.size, (128, 128, 128, 255))
        return Image.alpha_composite(backdrop, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


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
