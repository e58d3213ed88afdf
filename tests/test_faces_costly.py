"""Pictures of a few kilobytes that would take minutes or gigabytes to decode are refused before they are."""

from __future__ import annotations

import io
import os
import struct
import threading
from pathlib import Path

import pytest
from PIL import Image

from fer_bench import faces
from fer_bench.datasets import load_dataset
from fer_bench.faces import UnreadablePictureError, open_picture
from tests.helpers import write_folder


def jpeg(**options: object) -> bytes:
    held = io.BytesIO()
    Image.linear_gradient("L").save(held, "JPEG", **options)
    return held.getvalue()


def tiff(tile: int) -> bytes:
    """A grey TIFF of 16 x 16 pixels in one tile of that side, of which there is nothing."""
    entries = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: 1}
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + struct.pack("<I", 0)


def bmp(side: int) -> bytes:
    """A black BMP of that side, run-length encoded: eight rows, and its end."""
    palette, pixels = b"\0\0\0\0" * 256, b"\x08\0\0\0" * 8 + b"\0\1"
    offset = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + palette + pixels


def test_a_jpeg_of_many_passes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A usual progressive one, of about ten, is opened; a baseline one has no passes to count."""
    usual = jpeg(progressive=True)
    assert 2 < usual.count(b"\xff\xda") < faces.MOST_SCANS
    assert open_picture(usual).size == (256, 256)
    end = usual.rindex(b"\xff\xda")
    bomb = usual[:end] + usual[end:-2] * faces.MOST_SCANS + usual[-2:]
    with pytest.raises(UnreadablePictureError, match="the picture: a JPEG of more than 100 passes; save it as"):
        open_picture(bomb)
    monkeypatch.setattr(faces, "MOST_SCANS", 0)
    assert open_picture(jpeg()).size == (256, 256)


def test_a_tiff_with_a_tile_of_gigabytes_is_refused() -> None:
    """Whatever the picture's own size is."""
    with pytest.raises(UnreadablePictureError, match="with tiles of 1,600 megapixels this is too large to open"):
        open_picture(tiff(40_000))
    with pytest.raises(UnreadablePictureError, match="this is not a readable picture"):  # it has no pixels
        open_picture(tiff(16))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"P2 2000 2000 255\n0 0", "a PNM in letters"),
        (b"P1 2000 2000\n0 0", "a PNM in letters"),
        (bmp(2000), "a BMP in runs"),
    ],
)
def test_what_is_decoded_pixel_by_pixel_must_be_small(content: bytes, kind: str) -> None:
    """One line, and no minutes; small ones are read as before."""
    with pytest.raises(UnreadablePictureError, match=f"{kind} of so many pixels takes minutes to read; save it as PNG"):
        open_picture(content)
    assert open_picture(b"P2 2 2 255\n0 9 9 0\n").size == (2, 2)
    assert open_picture(bmp(8)).size == (8, 8)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_among_pictures_is_skipped_by_name(tmp_path: Path) -> None:
    """Nobody writes into it: to wait for a picture there is to wait for ever."""
    folder = write_folder(tmp_path / "seven")
    os.mkfifo(pipe := next(folder.glob("train/happiness*")) / "aa.png")
    found: list = []
    reader = threading.Thread(target=lambda: found.append(load_dataset(f"folder:{folder}", "train")), daemon=True)
    reader.start()
    reader.join(30)
    assert found, "it still waits for the pipe"
    assert [line for line in found[0].skipped if "aa.png: this is a pipe or a device" in line]
    with pytest.raises(UnreadablePictureError, match="this is a pipe or a device, not a file"):
        open_picture(pipe)
