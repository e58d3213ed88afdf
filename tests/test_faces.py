"""Pictures in every form that people have them, and what is no picture."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import faces
from fer_bench.faces import UnreadablePictureError, open_picture, square, stack

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


def directory(*entries: tuple[int, int, int, bytes]) -> bytes:
    """The head of a TIFF, which EXIF is too: little-endian, with these entries (tag, type, count, value)."""
    behind = 8 + 2 + 12 * len(entries) + 4
    head, rest = struct.pack("<2sHIH", b"II", 42, 8, len(entries)), b""
    for tag, kind, count, value in entries:
        head += struct.pack("<HHI", tag, kind, count)
        head += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", behind + len(rest))
        rest += value if len(value) > 4 else b""
    return head + bytes(4) + rest


@pytest.mark.parametrize(
    "other",
    [
        (0x11A, 2, 5, b"abcd\0"),  # XResolution as text
        (0x11A, 10, 1, struct.pack("<ii", -1, 3)),  # and negative
        (0x100, 9, 1, struct.pack("<i", -5)),  # ImageWidth, negative
        (0x100, 2, 4, b"abc\0"),  # and as text
        (0x102, 5, 1, struct.pack("<II", 3, 7)),  # BitsPerSample as a fraction
    ],
)
def test_a_malformed_tag_costs_neither_the_picture_nor_its_rotation(other: tuple) -> None:
    """Of EXIF only the orientation is read: whatever else is wrong in it, the picture comes out, and upright."""
    exif = b"Exif\0\0" + directory(*sorted([other, (0x112, 3, 1, struct.pack("<H", 6))]))
    picture = open_picture(encoded(Image.fromarray(RGB), "WEBP", lossless=True, exif=exif))
    np.testing.assert_array_equal(np.asarray(picture), np.rot90(RGB, -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_turned_picture_is_turned_once(kind: str) -> None:
    """What comes out is upright and says so: opened once more, or cut and opened, it stays as it is."""
    exif = Image.Exif()
    exif[0x112] = 6
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5)
    once = open_picture(encoded(image, kind, exif=exif))
    assert once.size == (6, 8)
    np.testing.assert_array_equal(np.asarray(open_picture(once)), np.asarray(once))
    np.testing.assert_array_equal(np.asarray(open_picture(once.crop((0, 0, 6, 8)))), np.asarray(once))


@pytest.mark.parametrize("exif", [b"II*\0", b"no EXIF at all", directory((0x112, 2, 2, b"6\0"))])
def test_exif_that_cannot_be_read_leaves_the_picture_as_it_is(exif: bytes) -> None:
    """Without an orientation that can be read, the picture is taken as it is stored."""
    picture = open_picture(encoded(Image.fromarray(RGB), exif=b"Exif\0\0" + exif))
    np.testing.assert_array_equal(np.asarray(picture), RGB)


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


def test_a_tiff_of_twelve_bits() -> None:
    """A grey TIFF that says it has 12 bits is scaled from these: 0, a third and all of 4,095 are 0, 85 and 255."""
    short = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: 6}  # in turn: width to bytes of it
    short[273] = len(directory(*((tag, 3, 1, bytes(2)) for tag in short)))
    head = directory(*((tag, 3, 1, struct.pack("<H", value)) for tag, value in short.items()))
    packed = bytes.fromhex("000 555 FFF 000".replace(" ", ""))
    assert np.asarray(open_picture(head + packed)).tolist() == [[0, 85, 255, 0]]


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


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.array([[0, 300, 65_535]], dtype=np.float32), "0 to 65535, leave 0..255"),
        (np.array([[-0.5, 1]], dtype=np.float32), "-0.5 to 1, leave 0..255"),
        (np.array([[0, 70_000]], dtype=np.int32), "0 to 70000, leave 0..65535"),
        (np.array([[0, np.nan]], dtype=np.float32), "nan to nan, leave"),
    ],
)
def test_deep_images_beyond_every_range_are_refused(values: np.ndarray, told: str) -> None:
    """They are not clipped to white or black without a word, as arrays of such values are not."""
    assert f"its pixels, {told}" in refusal(Image.fromarray(values))


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
        ("phone.heic", b"\0\0\0\x24ftypheic\0\0\0\0mif1heic", "HEIC cannot be opened here: save it as JPEG"),
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
    """A small file that would unfold to more pixels than Pillow's limit allows is refused before it unfolds.

    As one above our own limit is: Pillow's talk of an attack does not reach a visitor with a large scan.
    """
    path = tmp_path / "bomb.png"
    path.write_bytes(encoded(Image.new("L", (1000, 1000))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    assert refusal(path) == f"{path}: this is too large to open (the bound is 89 megapixels); make it smaller first."


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


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_picture_of_no_pixels_is_refused(size: tuple[int, int]) -> None:
    """A crop that went wrong gives one; it is named like any picture that cannot be read, never answered about."""
    told = f"a picture of {size[0]} x {size[1]} pixels shows nothing."
    assert refusal(Image.new("RGB", size)) == f"the picture: {told}"
    assert refusal(np.zeros((size[1], size[0], 3), np.uint8)).startswith("the array: ")


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
