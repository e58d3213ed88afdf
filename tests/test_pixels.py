"""Large pictures become 8-bit ones a strip at a time: with the pixels of the whole, in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from fer_bench.faces import UnreadablePictureError, open_picture
from fer_bench.pixels import STRIP

TALL = 2 * STRIP + 40


def noise(*shape: int, top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_strips_of_a_transparent_picture_are_those_of_the_whole(mode: str) -> None:
    """On mid grey, composed at once and strip by strip, every pixel is the same."""
    image = Image.fromarray(noise(TALL, 30, 4), "RGBA")
    if mode == "P":
        image = image.convert("RGB").quantize(16)
        image.info["transparency"] = 3
    image = image.convert(mode)
    whole = Image.alpha_composite(Image.new("RGBA", image.size, (128, 128, 128, 255)), image.convert("RGBA"))
    expected = np.asarray(whole.convert("L" if mode == "LA" else "RGB"))
    found = np.asarray(open_picture(image))
    assert (found == expected).all()
    assert (found == 128).any() or mode != "P"


def test_strips_of_a_deep_picture_are_those_of_the_whole() -> None:
    """16 bits are scaled to 8 in every row."""
    values = noise(TALL, 30, top=2**16, dtype=np.uint16)
    expected = (values.astype(np.float64) * (255 / 65535)).round()
    assert (np.asarray(open_picture(Image.fromarray(values))) == expected).all()


def test_a_deep_picture_takes_a_few_bytes_a_pixel() -> None:
    """A small file may hold tens of megapixels, of which float64 copies would take gigabytes."""
    image = Image.fromarray(np.zeros((4000, 2000), np.uint16))
    tracemalloc.start()
    try:
        open_picture(image)
        assert tracemalloc.get_traced_memory()[1] < 6 * 4000 * 2000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("high", "told"), [(1.0000001, "0 to 1.00000012"), (1.0001, "0 to 1.00010002"), (1.9, "0 to 1.")]
)
def test_floats_a_hair_above_one_are_refused(high: float, told: str) -> None:
    """They are not read as 0..255, where they would be black; from 2 on they are, and up to 1 they are 0..1."""
    values = np.array([[0, 0.5, high]], np.float32)
    with pytest.raises(UnreadablePictureError, match=rf"its pixels, {told}\d*, leave 0\.\.1: save it as 8 bits"):
        open_picture(Image.fromarray(values))
    for top, expected in ((1, [0, 128, 255]), (2, [0, 0, 2])):
        values[0, 2] = top
        assert np.asarray(open_picture(Image.fromarray(values))).tolist() == [expected]
