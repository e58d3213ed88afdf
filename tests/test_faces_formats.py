"""Which formats are opened: those that the suffixes of pictures name, whatever a file is called, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from fer_bench.datasets.own import _shorter_side
from fer_bench.faces import PICTURE_FORMATS, PICTURE_SUFFIXES, open_picture
from tests.test_faces import encoded, refusal

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n{ } loop\n%%EOF\n"
MEND = ", which is not opened here: save it as PNG or JPEG)."


@pytest.fixture
def gs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Ghostscript on the path that only leaves this file where it was run."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return tmp_path / "was-run"


@pytest.mark.parametrize("head", [b"", b"\xc5\xd0\xd3\xc6" + (30).to_bytes(4, "little") + bytes(22)])
def test_a_picture_runs_no_program(head: bytes, gs: Path, tmp_path: Path) -> None:
    """PostScript in a picture's clothes, plain or in DOS's wrapping, is refused as EPS and never interpreted."""
    path = tmp_path / "face.png"
    path.write_bytes(head + EPS)
    assert refusal(path) == f"{path}: this is not a readable picture (it is EPS{MEND}"
    assert refusal(path.read_bytes()) == f"the picture: this is not a readable picture (it is EPS{MEND}"
    with path.open("rb") as file:
        assert "its format is unknown" in refusal(file)
    assert _shorter_side(path) == 0
    assert not gs.exists()


@pytest.mark.parametrize("form", ["ICO", "PCX", "SGI", "ICNS"])
def test_another_format_is_named(form: str, tmp_path: Path) -> None:
    """A picture in a format that is not opened is refused by the format's name, with what to save it as."""
    path = tmp_path / "face.png"
    path.write_bytes(encoded(Image.new("RGB", (32, 32), "red"), form))
    assert refusal(path) == f"{path}: this is not a readable picture (it is {form}{MEND}"


@pytest.mark.parametrize("suffix", sorted(PICTURE_SUFFIXES))
def test_every_suffix_has_its_format(suffix: str, tmp_path: Path) -> None:
    """What is saved under any name that pictures end with is opened, under that name and without one."""
    path = tmp_path / f"face{suffix}"
    image = Image.new("1" if suffix == ".pbm" else "L" if suffix == ".pgm" else "RGB", (20, 12), "white")
    image.save(path)
    for source in (path, path.read_bytes()):
        assert open_picture(source).size == (20, 12)
    assert _shorter_side(path) == 12
    assert Image.registered_extensions()[suffix] in {*PICTURE_FORMATS, "MPO"}  # which is a JPEG until it is opened
