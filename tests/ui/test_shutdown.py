"""What is left of the visitors' files when the server is stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from fer_bench.datasets.rendered import render
from tests.ui.conftest import served

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)
def test_nothing_of_a_visitor_outlives_the_server(tmp_path: Path, stop: signal.Signals) -> None:
    """Stopped while a page is still open, the server takes along what was uploaded and its own folders."""
    from PIL import Image

    Image.fromarray(render("anger", 1.0, 3, 64)[0]).save(tmp_path / "face.png")
    with served(tmp_path, "app.py", "--port") as (url, process):
        with (tmp_path / "face.png").open("rb") as face:
            httpx.post(f"{url}/gradio_api/upload", files={"files": face}, timeout=240).raise_for_status()
        assert list(tmp_path.rglob("gradio/**/face.png"))
        assert list(tmp_path.glob("fer_bench-*"))
        with httpx.stream("GET", f"{url}/gradio_api/heartbeat/visitor", timeout=240) as page:
            beats = page.iter_bytes()  # held: an iterator that goes away closes the connection
            next(beats)
            os.kill(process, stop)
            assert _ended(process)
    assert not list(tmp_path.rglob("gradio/**/*"))
    assert not list(tmp_path.glob("fer_bench-*"))


def _ended(process: int) -> bool:
    """Whether a child process has ended within a minute; it stays to be waited for."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return True
        time.sleep(0.1)
    return False
