"""The app in this process, in a subprocess and with a browser before it, for the tests that need them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.ui.pages import PATIENCE

PROJECT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("FER_BENCH_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-quic", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
    "--disable-features=LocalNetworkAccessChecks",  # so that a page that stands for the Hub's may hold the app
]  # fmt: skip


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The app, not launched; what visitors give lies in a folder of the test."""
    from fer_bench.ui import app

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield app.build()


@pytest.fixture
def visitor(app: Any) -> Callable[..., list]:
    """A visitor: (event of a component, inputs as the page sends them) -> what the page gets."""
    from gradio.state_holder import SessionState

    return partial(ask_as, app, SessionState(app))


def ask_as(app: Any, session: Any, where: str, event: str, *given: Any) -> list:
    """What the page of that session gets from an event of a component, named by its elem_id or label."""

    def named(target: tuple[int, str]) -> tuple[str | None, str]:
        block = app.blocks.get(target[0])
        return getattr(block, "elem_id", None) or getattr(block, "label", None), target[1]

    (number,) = (fn._id for fn in app.fns.values() if fn.fn and (where, event) in map(named, fn.targets))
    return asyncio.run(app.process_api(number, list(given), state=session))["data"]


def sent(path: Path) -> dict:
    """A file as the page sends it."""
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(folder: Path, *command: str) -> Iterator[tuple[str, int]]:
    """A Python program that serves on the port it is given last, in a subprocess: its address and its process id.

    folder: where its log and the files of its visitors go.
    """
    port, log = free_port(), folder / "log.txt"
    environment = {
        **os.environ, "GRADIO_TEMP_DIR": str(folder / "gradio"), "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command, str(port)], cwd=PROJECT, stdout=output, stderr=output, env=environment,
            # Where the tests run in the background Ctrl-C's signal is ignored, and a process inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            if process.poll() is not None:
                pytest.fail(f"{command} ended with {process.returncode}: {log.read_text()[-2000:]}")
            try:
                urllib.request.urlopen(url, timeout=60)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        else:
            pytest.fail(f"{command} did not answer within five minutes: {log.read_text()[-2000:]}")
        yield url, process.pid
    finally:
        process.kill()  # it has nothing to put away, and on a busy machine a polite end may take long
        process.wait()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """`python app.py` as a visitor's server would run it: its address and its process id."""
    with served(tmp_path_factory.mktemp("app"), "app.py", "--port") as found:
        yield found


@pytest.fixture(scope="session")
def app_url(running: tuple[str, int]) -> str:
    """The address of `python app.py`."""
    return running[0]


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Debian's Chromium, driven by Playwright. Without it the test is skipped, but in CI it fails."""
    if CHROMIUM is None:
        message = "no chromium: apt-get install chromium, or name one in $FER_BENCH_CHROMIUM"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def window(browser: object) -> Iterator[object]:
    """One page for all tests: loading the app in it again takes half as long as in a new one, its scripts being known.

    Each test opens the app anew in it (`opened`), which is a new visit to the server.
    """
    context = browser.new_context(permissions=["camera"], reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def axe_source() -> str:
    """axe-core's script, from $FER_BENCH_AXE. Without it the test is skipped, but in CI it fails."""
    path = os.environ.get("FER_BENCH_AXE")
    if not path or not Path(path).is_file():
        message = "no axe-core: npm install axe-core, and name its axe.min.js in $FER_BENCH_AXE"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return Path(path).read_text()
