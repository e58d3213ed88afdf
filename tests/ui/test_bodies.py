"""What the server takes in: no upload once its room is used up, and no large question."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fer_bench.ui import app as entry
from fer_bench.ui import bodies
from tests.ui.conftest import free_port


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The visitors' folder, whose size is looked up at every request."""
    monkeypatch.setattr(bodies, "LOOKED_SECONDS", 0)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "visitors"))
    (tmp_path / "visitors").mkdir()
    return tmp_path / "visitors"


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """A small app, launched as this one is; its one event tells how long a text is."""
    import gradio as gr

    with gr.Blocks() as demo:
        text = gr.Textbox()
        text.submit(lambda given: str(len(given)), text, text, api_name="upload", queue=False)
    demo.queue(api_open=True)
    try:
        _, found, _ = demo.launch(
            server_port=free_port(), prevent_thread_lock=True, quiet=True, **entry.launch_options()
        )
        yield found.rstrip("/")
    finally:
        demo.close()


def upload(url: str, *sizes: int, chunked: bool = False) -> httpx.Response:
    """Upload files of these sizes in one request; chunked: without a word on how long it is."""
    files = [("files", (f"{number}.png", os.urandom(size))) for number, size in enumerate(sizes)]
    request = httpx.Request("POST", f"{url}{bodies.UPLOAD}", files=files)
    if chunked:
        kind, body = {"content-type": request.headers["content-type"]}, request.read()
        pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
        return httpx.post(f"{url}{bodies.UPLOAD}", content=pieces, headers=kind, timeout=60)
    with httpx.Client(timeout=60) as client:
        return client.send(request)


def ask(url: str, size: int, chunked: bool = False, path: str = "run/upload") -> httpx.Response:
    body = json.dumps({"data": ["a" * size]}).encode()
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    kind = {"content-type": "application/json"}
    return httpx.post(f"{url}/gradio_api/{path}", content=pieces if chunked else body, headers=kind, timeout=60)


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_needs_room(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    """Uploads go on until the folder is full, then 507 and a sentence until files were deleted."""
    monkeypatch.setattr(bodies, "MOST_HELD", 3_000_000)
    first = upload(url, 1_000_000, chunked=chunked)
    assert first.status_code == 200
    assert Path(first.json()[0]).is_relative_to(folder)
    refused = upload(url, 500_000, 500_000, 500_000, 500_000, 500_000, chunked=chunked)
    assert refused.status_code == 507
    assert refused.json() == {"error": bodies.FULL}
    assert bodies.size_of(str(folder)) < 3_200_000
    (folder / "clip.mp4").write_bytes(b"a" * 3_000_001)
    assert upload(url, 1, chunked=chunked).status_code == 507
    assert ask(url, 10).json()["data"] == ["10"]  # what is there is answered for all the same
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()
    assert upload(url, 1_000_000, chunked=chunked).status_code == 200


def test_the_folder_is_looked_at_every_two_seconds(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most, and what came since counts, so that nobody is faster than the look."""
    looks = []
    monkeypatch.setattr(bodies, "LOOKED_SECONDS", 600)
    monkeypatch.setattr(bodies, "MOST_HELD", 3_000_000)
    monkeypatch.setattr(bodies, "size_of", lambda folder: looks.append(folder) or 0)
    assert [upload(url, 1_000_000).status_code for _ in range(4)] == [200, 200, 507, 507]
    assert looks == [str(folder)]


def test_the_room_and_how_often_it_is_looked_at() -> None:
    """The bounds as they are where no test sets them."""
    assert (bodies.MOST_HELD, bodies.MOST_ASKED, bodies.LOOKED_SECONDS) == (2 * 10**9, 8 * 10**6, 2)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["run/upload", "queue/join", "component_server", "upload/", "none"])
def test_a_large_question_is_refused(url: str, path: str, chunked: bool) -> None:
    """Whether or not it says how long it is, and under whatever name that looks like an upload's."""
    refused = ask(url, 9_000_000, chunked, path)
    if chunked and path in ("upload/", "none"):  # answered before anything was read of it
        assert refused.status_code in (307, 404, 405, 413)
        return
    assert refused.status_code == 413
    assert refused.json() == {"error": bodies.LARGE}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_frame_of_a_camera_passes(url: str, chunked: bool) -> None:
    """A megabyte inside a question, as the live camera sends its frames."""
    assert ask(url, 1_000_000, chunked).json()["data"] == ["1000000"]


def test_a_picture_may_be_larger_than_a_question(url: str) -> None:
    """An upload has gradio's bound of 60 MB, which is still there."""
    assert upload(url, 9_000_000).status_code == 200
    assert upload(url, 64_000_000).status_code == 413


def test_no_recording_of_a_screen_is_taken(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio would leave it in the system's folder for good."""
    (tmp_path / "system").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "system"))
    refused = httpx.post(f"{url}{bodies.RECORDING}", files={"video": ("a.mp4", b"a face")}, timeout=60)
    assert refused.status_code == 404
    assert not list((tmp_path / "system").iterdir())


def test_many_empty_files_count(tmp_path: Path) -> None:
    """A file takes room even where nothing is in it; a link is not followed."""
    for number in range(10):
        (tmp_path / str(number)).touch()
    (tmp_path / "link").symlink_to("/usr")
    assert bodies.size_of(str(tmp_path)) == 11 * bodies.LEAST
