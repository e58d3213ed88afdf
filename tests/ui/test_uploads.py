"""What a visitor's question can make the server open: what was uploaded to it, and nothing else."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fer_bench.datasets.rendered import render
from fer_bench.errors import UserError
from fer_bench.ui import clip, try_it
from tests.ui.conftest import sent

SETTINGS = (["small_cnn"], "gradcam", "predicted", 0.5)
META = {
    "none": {},
    "empty": {"meta": {}},
    "another": {"meta": {"_type": "gradio.Other"}},
    "file": {"meta": {"_type": "gradio.FileData"}},
}
"""How a question may describe a file; gradio itself looks at the path of the last form only."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what visitors gave, with one picture in it; another lies outside, beside it."""
    uploads = tmp_path / "uploads"
    (uploads / "ab").mkdir(parents=True)
    for path in (uploads / "ab" / "face.png", tmp_path / "private.png"):
        Image.fromarray(render("anger", 1.0, 3, 64)[0]).save(path)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    return uploads


def place(uploads: Path, kind: str) -> str:
    """A path of that kind that is no uploaded file; made where it has to be."""
    outside, inside = uploads.parent / "private.png", uploads / "ab" / "made.png"
    if kind == "link":
        inside.symlink_to(outside)
    if kind == "circle":
        inside.symlink_to(inside)
    if kind == "pipe":
        os.mkfifo(inside)
    if kind == "link to a pipe":
        os.mkfifo(uploads.parent / "pipe")
        inside.symlink_to(uploads.parent / "pipe")
    return {
        "outside": str(outside), "dots": f"{uploads}/ab/../../private.png", "relative": os.path.relpath(outside),
        "sibling": f"{uploads}-2/face.png", "missing": f"{uploads}/ab/missing.png", "device": "/dev/stdin",
        "folder": str(uploads), "null": f"{uploads}/ab/face.png\0", "long": "a" * 9000, "home": "~/face.png",
        "address": "http://127.0.0.1:9/face.png",
    }.get(kind, str(inside))  # fmt: skip


KINDS = (
    "outside", "dots", "relative", "sibling", "missing", "device", "folder", "null", "long", "home", "address", "link",
    "circle", "pipe", "link to a pipe",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("meta", META)
def test_only_an_uploaded_file_has_a_path(folder: Path, kind: str, meta: str) -> None:
    """Any other path is refused in the same words, which name none, and a pipe is not waited for."""
    given = {"path": place(folder, kind), **META[meta]}
    with pytest.raises(UserError) as refused:
        try_it.path_of(given)
    assert str(refused.value) == try_it.NOT_UPLOADED


@pytest.mark.parametrize("meta", META)
def test_an_uploaded_file_is_found(folder: Path, meta: str) -> None:
    """A file of the folder is given, also where the folder is named through a link; nothing is no path."""
    path = folder / "ab" / "face.png"
    assert try_it.path_of({"path": str(path), **META[meta]}) == str(path.resolve())
    assert try_it.path_of(None) is None
    assert try_it.path_of({"path": None, "url": "data:,", **META[meta]}) is None


def test_a_linked_folder_is_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where $GRADIO_TEMP_DIR is a link, as /tmp is on a Mac, its files are found by either name."""
    linked = folder.parent / "linked"
    linked.symlink_to(folder)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(linked))
    for given in (linked, folder):
        assert try_it.path_of({"path": str(given / "ab" / "face.png")}) == str((folder / "ab" / "face.png").resolve())


def outside(tmp_path: Path) -> Path:
    path = tmp_path / "private.png"
    Image.fromarray(render("anger", 1.0, 3, 64)[0]).save(path)
    return path


@pytest.mark.parametrize("meta", ["none", "empty", "another"])
@pytest.mark.parametrize(
    ("where", "event", "before", "after"),
    [
        ("picture", "change", (), (None, *SETTINGS)),
        ("face", "input", (), (None, *SETTINGS)),
        ("read-clip", "click", (), ("small_cnn", 4, "none")),
        ("camera", "stream", (), ("small_cnn", "gradcam", None)),
        ("score", "click", (), (["small_cnn"],)),
        ("check", "click", ("name: x",), (None, None)),
        ("check", "click", ("name: x", None), (None,)),
    ],
)
def test_no_event_opens_a_file_of_the_server(
    visitor: Callable, tmp_path: Path, where: str, event: str, before: tuple, after: tuple, meta: str
) -> None:
    """A path without the mark by which gradio knows a file is refused by every event that takes one."""
    from pydantic import ValidationError

    given: Any = {"path": str(outside(tmp_path)), **META[meta]}
    if where in ("read-clip", "score", "check"):  # gradio's own files and clips
        with pytest.raises(ValidationError, match="meta"):
            visitor(where, event, *before, [given] if where == "score" else given, *after)
        return
    answer = str(visitor(where, event, *before, given, *after))
    assert try_it.NOT_UPLOADED in answer or "no frame of a camera" in answer
    assert "fer-card" not in answer
    assert str(tmp_path) not in answer


def test_an_example_is_answered(app: Any, visitor: Callable) -> None:
    """The app's own drawn faces go the way of an upload, in the form in which the page sends them."""
    from gradio.components import Dataset

    (samples,) = (block.samples for block in app.blocks.values() if isinstance(block, Dataset))
    assert len(samples) == len(try_it.examples())
    for meta in META.values():
        message, *_, answers, _, _ = visitor("picture", "change", {**samples[0][0], **meta}, None, *SETTINGS)
        assert try_it.ONE_FACE in message
        assert "fer-card" in answers


def test_a_capture_is_answered(visitor: Callable, app: Any, tmp_path: Path) -> None:
    """What the page uploads from a camera or the clipboard is a file like any other."""
    path = Path(os.environ["GRADIO_TEMP_DIR"]) / "0123" / "image.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    outside(tmp_path).rename(path)
    answer = visitor("picture", "change", sent(path), None, *SETTINGS)
    assert "fer-card" in answer[3]


def test_the_live_camera_takes_frames_alone(visitor: Callable, folder: Path) -> None:
    """A frame inside the question is answered; a path, another kind of address and a broken frame are refused."""
    buffer = io.BytesIO()
    Image.fromarray(render("happiness", 1.0, 32, 128)[0]).save(buffer, "JPEG")
    frame = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    line, *_ = visitor("camera", "stream", {"url": frame}, "small_cnn", "none", None)
    assert "fer-note" in line
    assert "bad" not in line
    assert clip.frame_in({"url": frame, "path": str(folder.parent / "private.png")}).size == (128, 128)
    private = base64.b64encode((folder.parent / "private.png").read_bytes()).decode()
    for given in (
        {"path": str(folder.parent / "private.png")}, {"path": str(folder / "ab" / "face.png"), **META["file"]},
        {"url": f"file://{folder.parent}/private.png"}, {"url": "http://127.0.0.1:9/a.png"}, {"url": "data:image/png"},
        {"url": f"data:text/plain;base64,{private}"}, {"url": frame[:-900]}, {"url": None}, {},
    ):  # fmt: skip
        with pytest.raises(UserError, match=r"^This is no frame of a camera; start the camera and ask again\.$"):
            clip.frame_in(given)


@pytest.mark.parametrize(
    ("where", "event", "name", "before", "after"),
    [
        ("picture", "change", "face.png", (), (None, *SETTINGS)),
        ("face", "input", "face.png", (), (None, *SETTINGS)),
        ("read-clip", "click", "clip.mp4", (), ("small_cnn", 4, "none")),
        ("score", "click", "face.png", (), (["small_cnn"],)),
        ("check", "click", "model.onnx", ("name: x",), (None,)),
        ("check", "click", "model.zip", ("name: x", None), ()),
    ],
)
def test_a_file_that_was_deleted_since_is_said_to_be(
    visitor: Callable, where: str, event: str, name: str, before: tuple, after: tuple
) -> None:
    """A page that is left open longer than files are kept is told so, in words that hold no path of the server."""
    path = Path(os.environ["GRADIO_TEMP_DIR"]) / "4567" / name
    given = [sent(path)] if where == "score" else sent(path)
    answer = str(visitor(where, event, *before, given, *after))
    assert "or it has been deleted since (files are kept for 10 minutes); upload it again." in answer
    assert str(path.parent) not in answer
    if where == "score":
        assert "face.png: This is no file that was uploaded here" in answer


def test_files_that_are_left_are_answered_for(visitor: Callable, tmp_path: Path) -> None:
    """Of many pictures those that were not deleted get their answers, beside a sentence on each that was."""
    there = Path(os.environ["GRADIO_TEMP_DIR"]) / "89ab" / "there.png"
    there.parent.mkdir()
    outside(tmp_path).rename(there)
    message, gallery, _ = visitor("score", "click", [sent(there.parent / "gone.png"), sent(there)], ["deep_emotion"])
    assert "1 picture read." in message
    assert "gone.png: This is no file" in message
    assert len(gallery["value"]) == 1
