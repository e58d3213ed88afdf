"""Clips whose pixels are not square, as those of HDV, AVCHD, DV and DVD, come out as a player shows them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fer_bench.predict import annotate_clip
from fer_bench.video import frames, probe, representative
from tests.test_predict import MODELS
from tests.test_video import plain


def squeezed(path: Path, aspect: Fraction, rotation: int = 0, codec: str = "mpeg4") -> Path:
    """Five frames of 64 x 48 with a white corner at the top left, to be shown with pixels of this width by height."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for level in range(0, 200, 40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(plain(level), format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("a.mkv", "mpeg4"), ("a.mp4", "libx264"), ("a.ts", "libx264"), ("a.mpg", "mpeg2video")],
)
def test_pixels_that_are_not_square(name: str, codec: str, tmp_path: Path) -> None:
    """A frame of pixels 4/3 as wide as high becomes wider by as much, in every reader, and nothing of it moves."""
    path = squeezed(tmp_path / name, Fraction(4, 3), codec=codec)
    assert probe(path).size == (85, 48)
    for frame in (*frames(path), *representative(path, 3)):
        assert frame.image.size == (85, 48)
        pixels = np.asarray(frame.image).mean(2)
        assert pixels[4, 17] > 220  # the white quarter of the sides ends at 21 and 12
        assert pixels[4, 26] < 180
        assert pixels[16, 4] < 180


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(16, 15), (68, 48)), (Fraction(32, 11), (186, 48)), (Fraction(8, 9), (64, 54)),
        (Fraction(1, 1), (64, 48)), (Fraction(1280, 1281), (64, 48)), (Fraction(5, 1), (64, 48)),
        (Fraction(1, 9), (64, 48)),
    ],
)  # fmt: skip
def test_aspects_that_are_believed(aspect: Fraction, size: tuple[int, int], tmp_path: Path) -> None:
    """No frame shrinks; what is square but for rounding, and what no camera makes, is left as it is stored."""
    path = squeezed(tmp_path / "a.mp4", aspect)
    assert probe(path).size == size
    assert {frame.image.size for frame in frames(path)} == {size}


@pytest.mark.parametrize(("rotation", "corner"), [(90, "bl"), (-90, "tr"), (180, "br")])
def test_the_stored_frame_is_stretched_and_then_turned(rotation: int, corner: str, tmp_path: Path) -> None:
    """A turned clip's pixels are as wide as stated before it is turned."""
    path = squeezed(tmp_path / "a.mp4", Fraction(4, 3), rotation)
    size = (85, 48) if rotation == 180 else (48, 85)
    assert probe(path).size == size
    picture = np.asarray(next(frames(path)).image).mean(2)
    assert picture.shape == size[::-1]
    corners = {"tl": picture[4, 4], "tr": picture[4, -5], "bl": picture[-5, 4], "br": picture[-5, -5]}
    assert max(corners, key=corners.get) == corner


def test_an_annotated_clip_has_square_pixels(tmp_path: Path) -> None:
    """What is written is as wide as what was shown, and says nothing else of its pixels."""
    path = squeezed(tmp_path / "a.mp4", Fraction(4, 3))
    out = annotate_clip(path, tmp_path / "out.mp4", MODELS["small_cnn"], detect=False)
    assert probe(out).size == (86, 48)  # an odd side is made even
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (86, 48)
        assert stream.sample_aspect_ratio in (None, 1)
