"""Pictures of any kind -> upright 8-bit ones: EXIF's turns, transparency, 16 bits, floats."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

STRIP = 256
"""Rows that are converted at once."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture of each EXIF orientation upright."""


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF says; as it is stored where that cannot be read.

    Not `ImageOps.exif_transpose`: that writes all of EXIF anew, which a malformed tag of any other kind makes fail.
    """
    image.load()  # a TIFF turns itself here, and says so from then on
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # as with pixels, each kind of damage raises one of its own kinds
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    for place in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"):
        turned.info.pop(place, None)  # what says how to turn it, which would be done again
    return turned


def to_8bit(image: Image.Image) -> Image.Image:
    """The picture upright, of mode "L" where it was grey, else "RGB"; what is transparent is laid on mid grey.

    A strip at a time, so that a large picture needs little more than itself and its result. Raises ValueError for
    pixels outside of any usual range.
    """
    image = _upright(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep(image)
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    opaque = Image.new(mode, image.size)
    for top in range(0, image.height, STRIP):
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height))).convert("RGBA")
        backdrop = Image.new("RGBA", strip.size, (128, 128, 128, 255))
        opaque.paste(Image.alpha_composite(backdrop, strip).convert(mode), (0, top))
    return opaque


def _from_deep(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float pixels -> 8-bit. The last two do not say their range: the least usual one that fits.

    ValueError where none does: floats above 255 may have 16 bits or be a little too bright; so are floats whose
    greatest lies between 1 and 2, which of 0..255 would be black. A TIFF of 12 bits says so; else 12 bits in 16 are not
    guessed by the brightest pixel: of a series each would be scaled in its own way.
    """
    values = np.asarray(image)
    usual = (255.0, 65535.0) if image.mode == "I" else (1.0, 255.0)
    if image.mode.startswith("I;16"):
        usual = (2.0 ** getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))[0] - 1,)
    low, high = float(values.min()), float(values.max())
    if usual[0] < high < 2:  # only where `usual` begins at 1
        usual = usual[:1]
    top = next((top for top in usual if low >= 0 and high <= top), None)
    if top is None:
        raise ValueError(f"its pixels, {low:g} to {high:.9g}, leave 0..{usual[-1]:g}: save it as 8 bits")
    scaled = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), STRIP):
        scaled[row : row + STRIP] = (values[row : row + STRIP] * np.float64(255.0 / top)).round()
    return Image.fromarray(scaled)
